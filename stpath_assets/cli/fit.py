"""`fit`: fits a predictor to registered slides with measured spots."""

from pathlib import Path

import click

from stpath_assets.cli.options import answer, common, json_option

MOST_VARIABLE = 50


@click.command()
@click.argument("name")
@click.option("--slides", required=True, help="Slides to fit to, comma-separated, or cohort for all that have spots.")
@click.option("--model", default="ridge", show_default=True, help="ridge, knn, depth_only or mean.")
@click.option("--genes", help=f"Panel, as for run, or a number of most variable genes.  [default: {MOST_VARIABLE}]")
@click.option(
    "--scale", default="raw_log1p", show_default=True, help="raw_log1p, or cp10k_log1p for counts per 10,000."
)
@click.option(
    "--copies/--no-copies",
    default=True,
    show_default=True,
    help="Fit also without each patient, to predict its slides.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Also write it to this .npz, for predict --reference.")
@click.option("--force", is_flag=True, help="Replace the file of --out.")
@json_option
@common
def fit(
    name: str,
    slides: str,
    model: str,
    genes: str | None,
    scale: str,
    copies: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    home: str | None,
) -> None:
    """Fit a predictor to registered slides.

    They need features and measured spots: run them first. `run --models stpath,ridge:NAME` predicts with it.

    \b
    stpath-assets fit breast --slides cohort
    stpath-assets fit breast --slides S1,S2 --model knn --genes EPCAM,ERBB2
    """
    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.defs.materialize import record_references
    from stpath_assets.evaluation.fitting import Asked, store_reference
    from stpath_assets.exports import destination
    from stpath_assets.prediction.panels import absolute
    from stpath_assets.prediction.references import load_reference, read_references
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings, split_genes
    from stpath_assets.storage import Store

    settings = load_settings(home)
    store = Store.of(settings)
    if out is not None:
        destination.check(out, (".npz",), "a fitted predictor", force)
    asked = Asked(name, model, split_genes(slides), absolute(genes or str(MOST_VARIABLE)), scale, copies)
    with progress_bars() as listen, listening(listen):
        fitted, now = store_reference(store, asked)
    record_references(settings, {fitted.model: now})
    if out is not None:
        load_reference(store, fitted).save(out)
    patients = ", ".join(sorted(set(fitted.patients) - {""})) or "not known"
    left_out = [r.left_out for r in read_references(store) if r.model == fitted.model and r.left_out]
    answer(
        as_json,
        {
            "model": fitted.model, "genes": fitted.n_genes, "scale": scale, "fitted_now": now, "spots": fitted.n_spots,
            "slides": list(fitted.slides), "patients": list(fitted.patients), "left_out": left_out,
        },
        f"{fitted.model}: {fitted.n_genes} genes, {scale}" + ("" if now else "; up to date, not fitted again"),
        f"fitted to {fitted.n_spots} spots of {', '.join(fitted.slides)}; patients: {patients}",
        f"copies that leave out: {', '.join(left_out) or 'none, so its own slides cannot be predicted'}",
        f"predict with it: stpath-assets run --models stpath,{fitted.model}",
    )  # fmt: skip
