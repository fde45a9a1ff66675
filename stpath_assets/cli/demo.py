"""`demo`: runs the whole main job on phantom slides."""

import sys

import click

from stpath_assets.cli.options import common, json_option


@click.command()
@json_option
@common
def demo(home: str | None, as_json: bool) -> None:
    """Run the main job on phantom slides.

    The counts are simulated. No weights and no network are needed.

    \b
    stpath-assets demo --home data
    """
    from stpath_assets.cli.run import bring_up_to_date
    from stpath_assets.cli.terminal import progress_bars, say_what_next
    from stpath_assets.demo.root import prepare
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings

    settings = load_settings(home, encoder="demo", genes="all")
    with progress_bars() as listen, listening(listen):
        slides = prepare(settings)
    code = bring_up_to_date(settings, [s.slide_id for s in slides], as_json)
    if code == 0 and not as_json:
        say_what_next(settings.home, [s.slide_id for s in slides if s.held_out and s.spots])
    sys.exit(code)
