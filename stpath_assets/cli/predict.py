"""`predict`: predicts one slide into an .h5ad, without a data root."""

from pathlib import Path
from typing import Any

import click

from stpath_assets.cli.options import common, encoder_option, genes_option, is_given, mpp_option, note


@click.command()
@click.argument("scan", metavar="SLIDE", type=click.Path())
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The .h5ad to write.")
@click.option("--organ")
@click.option("--tech")
@genes_option(default="all", show_default=True)
@mpp_option(from_file=False)
@click.option(
    "--reference",
    type=click.Path(dir_okay=False),
    help="A predictor made by `fit`, in place of STPath; it has its own genes.",
)
@click.option(
    "--spots",
    type=click.Path(),
    help="Measured expression of the slide that STPath is given: the spots that lie on tiles.",
)
@encoder_option
@common
def predict(
    scan: str,
    out: str,
    home: str | None,
    encoder: str | None,
    genes: str,
    mpp: Any,
    reference: str | None,
    spots: str | None,
    **given: Any,
) -> None:
    """Predict one slide into an .h5ad file.

    No data root is needed.
    """
    from stpath_assets.cli.terminal import progress_bars

    if reference is not None and (given["organ"] or given["tech"] or spots or is_given("genes")):
        raise click.UsageError("--genes, --organ, --tech and --spots are for STPath; what `fit` made has its own genes")
    with progress_bars() as listen:
        import numpy as np

        from stpath_assets.evaluation.in_context import context_of
        from stpath_assets.exports import write_h5ad
        from stpath_assets.features import embed, embedder_of
        from stpath_assets.prediction import ModelChoice, predict_expression
        from stpath_assets.prediction.predictors import Reference
        from stpath_assets.progress import listening
        from stpath_assets.settings import load_settings
        from stpath_assets.slides import open_slide
        from stpath_assets.spots import read_spots
        from stpath_assets.tiles import tile
        from stpath_assets.vocabulary import tokens

        settings = load_settings(home, genes=genes, encoder=encoder)
        organ, tech = tokens.organ(given["organ"]), tokens.tech(given["tech"])
        fitted = None if reference is None else Reference.load(reference)
        model = ModelChoice.for_encoder(settings.encoder, settings)
        panel = None
        if fitted is None:
            panel = model.panel(settings.genes)
            model.load_vocabulary().select(panel)
        with listening(listen), open_slide(scan, None if mpp == "file" else mpp) as slide:
            for warning in slide.warnings:
                note(warning)
            tiles = tile(
                slide, min_tissue=settings.min_tissue, stride=settings.stride, quality=settings.quality_filter,
                on_unreadable=settings.unreadable,
            )  # fmt: skip
            features = embed(tiles, embedder_of(settings), settings.batch_size)
            if fitted is None:
                known = None if spots is None else context_of(features, read_spots(Path(spots)))
                prediction = predict_expression(features, organ, tech, panel, model=model, context=known)
                if known is not None:
                    prediction.obs["is_context"] = np.isin(np.arange(len(tiles)), known.indices)
            else:
                prediction = fitted.predict(features)
            write_h5ad(prediction, Path(out))
    told = f", {int(prediction.obs['is_context'].sum())} of them known" if "is_context" in prediction.obs else ""
    click.echo(f"{out}: {len(tiles)} tiles{told}, {prediction.uns['histo']['model']}")
