"""`retire`: takes a slide out of the catalog and of later runs."""

import click

from stpath_assets.cli.options import common


@click.command()
@click.argument("slide_id")
@click.option("--reason")
@common
def retire(slide_id: str, home: str | None, reason: str | None) -> None:
    """Take a slide out of later runs.

    It also leaves the catalog. Nothing is deleted.
    """
    from stpath_assets.defs.materialize import sync_partitions
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    settings = load_settings(home)
    Registry(Store.of(settings)).retire(slide_id, reason)
    sync_partitions(settings)
    click.echo(f"{slide_id}: retired")
