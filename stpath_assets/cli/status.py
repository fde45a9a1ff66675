"""`status`: shows the state of each slide's stages."""

import json

import click

from stpath_assets.cli.options import begin, common, json_option


@click.command()
@json_option
@common
def status(home: str | None, as_json: bool) -> None:
    """Show the state of each slide's stages.

    They are current, outdated with the reason, failed with the error, missing, or none. Scans of the inbox that could not be
    registered are in quarantine.

    \b
    stpath-assets status
    stpath-assets status --json
    """
    from stpath_assets.cli.terminal import status_table
    from stpath_assets.ingestion import read_quarantine
    from stpath_assets.settings import load_settings
    from stpath_assets.stages import Plan, states_of
    from stpath_assets.storage import Store
    from stpath_assets.tables import SLIDES

    settings = load_settings(home)
    store = Store.of(settings)
    begin("comparing what is stored with what would be made")
    rows = [
        {"slide": row.slide_id, "status": row.status, **{name: str(state) for name, state in states.items()}}
        for row, states in states_of(store, Plan(settings))
    ]
    rows += [
        {"slide": scan.slide_id, "status": "quarantine", SLIDES.name: f"failed: {scan.why}"}
        for scan in read_quarantine(store).values()
        if scan.is_over
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif rows:
        status_table(rows)
    else:
        click.echo(f"no slide is registered in {settings.home}; add one: stpath-assets add SLIDE")
