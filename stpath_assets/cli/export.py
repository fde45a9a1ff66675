"""`export`: writes one slide in another tool's format."""

from pathlib import Path

import click

from stpath_assets.cli.options import common


@click.command()
@click.argument("slide_id")
@click.option("--to", "form", type=click.Choice(["h5ad", "trident"]), required=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False))
@common
def export(slide_id: str, home: str | None, form: str, out: str) -> None:
    """Write a slide for other tools.

    h5ad is its stored prediction, trident its tiles and features.
    """
    from stpath_assets.exports import write_h5ad, write_trident
    from stpath_assets.prediction import read_prediction
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    store = Store.of(load_settings(home))
    if form == "trident":
        write_trident(store, slide_id, Path(out))
    else:
        write_h5ad(read_prediction(store, slide_id), Path(out))
    click.echo(out)
