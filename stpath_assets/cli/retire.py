"""`retire`: takes a slide out of the catalog and of later runs."""

import click

from stpath_assets.cli.completion import slides
from stpath_assets.cli.options import answer, common, json_option


@click.command()
@click.argument("slide_id", shell_complete=slides)
@click.option("--reason", help="Why, as the column reason keeps it.")
@json_option
@common
def retire(slide_id: str, home: str | None, reason: str | None, as_json: bool) -> None:
    """Take a slide out of later runs.

    It also leaves the catalog. Nothing is deleted.

    \b
    stpath-assets retire S1 --reason "out of focus"
    """
    from stpath_assets.defs.materialize import sync_partitions
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    settings = load_settings(home)
    Registry(Store.of(settings)).retire(slide_id, reason)
    sync_partitions(settings)
    answer(as_json, {"slide_id": slide_id, "status": "retired", "reason": reason}, f"{slide_id}: retired")
