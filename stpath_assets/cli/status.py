"""`status`: shows the state of each slide's stages."""

import json

import click

from stpath_assets.cli.options import common, json_option


@click.command()
@json_option
@common
def status(home: str | None, as_json: bool) -> None:
    """Show the state of each slide's stages.

    They are current, outdated with the reason, failed with the error, missing, or none.
    """
    from stpath_assets.cli.terminal import status_table
    from stpath_assets.settings import load_settings
    from stpath_assets.stages import Plan, states_of
    from stpath_assets.storage import Store

    settings = load_settings(home)
    rows = [
        {"slide": row.slide_id, "status": row.status, **{name: str(state) for name, state in states.items()}}
        for row, states in states_of(Store.of(settings), Plan(settings))
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif rows:
        status_table(rows)
    else:
        click.echo(f"no slide is registered in {settings.home}; add one: stpath-assets add SLIDE")
