"""`view`: the slide viewer."""

import sys
from contextlib import suppress

import click

from stpath_assets.cli.completion import slides
from stpath_assets.cli.options import answer, json_option, serving


@click.command()
@click.argument("slide_id", required=False, shell_complete=slides)
@click.option("--port", type=click.IntRange(0, 65535), help="Port on 127.0.0.1; 0 is any free one  [default: 3100]")
@click.option("--browser/--no-browser", default=None, help="Open a browser; by default if this is a terminal.")
@json_option
@serving
def view(slide_id: str | None, home: str | None, port: int | None, browser: bool | None, as_json: bool) -> None:
    """Look at slides: deep zoom, predicted and measured expression, tiles, regions.

    Serves a page on this machine until Ctrl-C. SLIDE_ID is opened first.

    \b
    stpath-assets view
    stpath-assets view phantom_B
    ssh -L 3100:localhost:3100 server stpath-assets view --no-browser
    """
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store
    from stpath_assets.viewer import link_to, serve

    settings = load_settings(home)
    if slide_id is not None:  # without one, the page of all slides says if there is none yet
        Registry(Store.of(settings)).choose([slide_id])

    def ready(listening: int) -> None:
        address = link_to(settings, slide_id, listening)
        answer(as_json, {"url": address}, f"the viewer is at {address}; Ctrl-C ends it")
        if sys.stdout.isatty() if browser is None else browser:
            click.launch(address)

    with suppress(KeyboardInterrupt):  # its usual end
        serve(settings, settings.viewer_port if port is None else port, ready)
