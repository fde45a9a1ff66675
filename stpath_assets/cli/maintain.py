"""`maintain`: merges small parts and removes unused files."""

import click

from stpath_assets.cli.options import answer, common, json_option


@click.command()
@json_option
@common
def maintain(home: str | None, as_json: bool) -> None:
    """Merge small files, remove unused ones.

    Also expires old states of the tables.

    \b
    stpath-assets maintain
    """
    from dataclasses import asdict
    from datetime import timedelta

    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store, maintenance

    settings = load_settings(home)
    with progress_bars() as listen, listening(listen):
        done = maintenance.maintain(Store.of(settings), timedelta(days=settings.snapshot_days))
    answer(
        as_json,
        asdict(done),
        f"merged {done.merged} files into {done.into}, expired {done.expired} states older than {settings.snapshot_days:g} days, "
        f"removed {done.removed} files ({done.removed_bytes / 1e6:.1f} MB)",
    )
