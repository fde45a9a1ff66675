"""`predict`: predicts slides into .h5ad files, without a data root."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stpath_assets.cli.options import (
    answer,
    common,
    complain,
    encoder_option,
    genes_option,
    is_given,
    json_option,
    mpp_option,
    note,
)  # fmt: skip

if TYPE_CHECKING:
    import anndata

    from stpath_assets.features import Features
    from stpath_assets.settings import Settings

Predicting = Callable[["Features"], "anndata.AnnData"]


@click.command()
@click.argument("scans", metavar="SLIDE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The .h5ad to write; of several slides, a folder."
)
@click.option("--organ", help="Organ, by STPath's names (Breast, Brain, ...); none if not given.")
@click.option("--tech", help="Technology: Visium, ST, Xenium or Visium HD; none if not given.")
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
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
@common
def predict(
    scans: tuple[str, ...],
    out: Path,
    home: str | None,
    encoder: str | None,
    genes: str,
    mpp: Any,
    reference: str | None,
    spots: str | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Predict slides into .h5ad files.

    No data root is needed. Of several slides, one that fails costs the others nothing.

    \b
    stpath-assets predict S1.svs --out S1.h5ad --organ Breast --tech Visium --genes EPCAM,ERBB2
    stpath-assets predict scans/*.svs --out predictions --organ Breast
    """
    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.errors import StpathError

    if reference is not None and (given["organ"] or given["tech"] or spots or is_given("genes")):
        raise click.UsageError("--genes, --organ, --tech and --spots are for STPath; what `fit` made has its own genes")
    if spots and len(scans) > 1:
        raise click.UsageError("--spots belong to one slide: predict it by itself")
    paths = _paths(scans, out, force)
    told, failed = list[dict[str, Any]](), 0
    with progress_bars() as listen:
        from stpath_assets.features import embedder_of
        from stpath_assets.progress import listening
        from stpath_assets.settings import load_settings

        settings = load_settings(home, genes=genes, encoder=encoder)
        predicting = _by_stpath(settings, given, spots) if reference is None else _by_reference(reference)
        embedder = embedder_of(settings)
        if len(scans) > 1:
            out.mkdir(exist_ok=True)
        for scan, path in paths.items():
            try:
                with listening(listen):
                    found = _predict(settings, scan, mpp, embedder, predicting, path)
            except StpathError as e:
                if len(scans) == 1:
                    raise
                failed += 1
                complain(str(e))
                told.append({"scan": scan, "error": str(e)})
                continue
            known = int(found.obs["is_context"].sum()) if "is_context" in found.obs else None
            model = str(found.uns["histo"]["model"])
            told.append({"scan": scan, "path": str(path), "tiles": found.n_obs, "known": known, "model": model})
            if not as_json:
                click.echo(f"{path}: {found.n_obs} tiles{'' if known is None else f', {known} of them known'}, {model}")
    if as_json:
        answer(True, told[0] if len(scans) == 1 else told)
    if failed:
        raise SystemExit(1)


def _paths(scans: tuple[str, ...], out: Path, force: bool) -> dict[str, Path]:
    """Return where each slide's prediction goes, checked before any work."""
    from stpath_assets.errors import ExportError
    from stpath_assets.exports import destination
    from stpath_assets.slides import slide_id_from_name

    if len(scans) == 1:
        destination.check(out, (".h5ad",), "an AnnData file", force)
        return {scans[0]: out}
    if out.suffix == ".h5ad" or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out}: {len(scans)} slides need a folder; give one")
    paths = {scan: out / f"{slide_id_from_name(Path(scan).name)}.h5ad" for scan in scans}
    twice = next((path for path, times in Counter(paths.values()).items() if times > 1), None)
    if twice is not None:
        raise ExportError(f"{twice}: two of the slides would be written there; rename one, or predict it by itself")
    if out.is_dir():
        for path in paths.values():
            destination.check(path, (".h5ad",), "an AnnData file", force)
    elif not out.parent.is_dir():
        raise ExportError(f"{out}: the folder {out.parent} does not exist; make it first, or correct --out")
    return paths


def _by_stpath(settings: "Settings", given: dict[str, Any], spots: str | None) -> Predicting:
    """Return the prediction by STPath. Organ, technology and genes are checked now."""
    import numpy as np

    from stpath_assets.evaluation.in_context import context_of
    from stpath_assets.prediction import ModelChoice, predict_expression
    from stpath_assets.spots import read_spots
    from stpath_assets.vocabulary import tokens

    organ, tech = tokens.organ(given["organ"]), tokens.tech(given["tech"])
    model = ModelChoice.for_encoder(settings.encoder, settings)
    panel = model.panel(settings.genes)
    model.load_vocabulary().select(panel)
    measured = None if spots is None else read_spots(Path(spots))

    def predicting(features: "Features") -> "anndata.AnnData":
        known = None if measured is None else context_of(features, measured)
        found = predict_expression(features, organ, tech, panel, model=model, context=known)
        if known is not None:
            found.obs["is_context"] = np.isin(np.arange(len(features)), known.indices)
        return found

    return predicting


def _by_reference(path: str) -> Predicting:
    from stpath_assets.prediction.predictors import Reference

    return Reference.load(path).predict


def _predict(
    settings: "Settings", scan: str, mpp: Any, embedder: Any, predicting: Predicting, path: Path
) -> "anndata.AnnData":
    """Take a scan through tiles and features, and write its prediction."""
    from stpath_assets.exports import add_reliability, write_h5ad
    from stpath_assets.features import embed
    from stpath_assets.slides import look_at, open_slide
    from stpath_assets.slides.source import Source
    from stpath_assets.tiles import tile

    given = None if mpp == "file" else mpp
    look_at(Source(scan), given)
    with open_slide(scan, given) as slide:
        for warning in slide.warnings:
            note(warning)
        tiles = tile(
            slide, min_tissue=settings.min_tissue, stride=settings.stride, quality=settings.quality_filter,
            on_unreadable=settings.unreadable,
        )  # fmt: skip
        found = add_reliability(predicting(embed(tiles, embedder, settings.batch_size)), settings)
        write_h5ad(found, path)
    return found
