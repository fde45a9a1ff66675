"""`fit`: fits a predictor to registered slides with measured spots."""

from pathlib import Path

import click

from stpath_assets.cli.options import common

MOST_VARIABLE = 50


@click.command()
@click.argument("name")
@click.option("--slides", required=True, help="Slides to fit to, comma-separated.")
@click.option("--model", default="ridge", show_default=True, help="ridge, knn, depth_only or mean.")
@click.option("--genes", help=f"Panel, as for run, or a number of most variable genes.  [default: {MOST_VARIABLE}]")
@click.option(
    "--scale", default="raw_log1p", show_default=True, help="raw_log1p, or cp10k_log1p for counts per 10,000."
)
@click.option(
    "--out", type=click.Path(dir_okay=False), help="The .npz to write.  [default: models/NAME.npz of the data root]"
)
@common
def fit(name: str, slides: str, model: str, genes: str | None, scale: str, out: str | None, home: str | None) -> None:
    """Fit a predictor to registered slides.

    They need features and measured spots: run them first. `predict --reference FILE` predicts with it.
    """
    from stpath_assets.evaluation.fitting import fit_registered
    from stpath_assets.settings import load_settings, split_genes
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    settings = load_settings(home)
    store = Store.of(settings)
    rows = Registry(store).choose(split_genes(slides))
    fitted = fit_registered(store, rows, name=name, model=model, genes=genes or str(MOST_VARIABLE), scale=scale)
    path = settings.home / "models" / f"{name}.npz" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    fitted.save(path)
    about = fitted.about
    patients = ", ".join(sorted(set(about.patients))) or "not known"
    click.echo(f"{path}: {about.model}, {len(about.genes)} genes, {about.scale}")
    click.echo(f"fitted to {about.spots} spots of {', '.join(about.slides)}; patients: {patients}")
