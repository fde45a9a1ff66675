"""`get`: fetches a public data set and registers its scan."""

import sys
from pathlib import Path

import click

from stpath_assets.cli.options import answer, common, complain, json_option, note

_NAMES = ("visium-breast-1", "visium-breast-2")


@click.command()
@click.argument("name", type=click.Choice(_NAMES))
@click.option(
    "--to", type=click.Path(path_type=Path), help="Folder for the files; default: public/NAME in the data root."
)
@click.option("--mirror", help="URL of a folder with the same files, in place of the publisher's.")
@json_option
@common
def get(name: str, to: Path | None, mirror: str | None, home: str | None, as_json: bool) -> None:
    """Fetch a public data set.

    Its scan is registered with its measured expression. A download that broke off goes on where it stopped.

    \b
    stpath-assets get visium-breast-1
    """
    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.defs.materialize import sync_partitions
    from stpath_assets.ingestion import add_entries, public
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry, scale
    from stpath_assets.storage import Store

    settings, wanted = load_settings(home), public.DATA_SETS[name]
    if not as_json:
        click.echo(f"{wanted.title}, by {wanted.source}; licence: {wanted.licence}")
    with progress_bars() as listen, listening(listen):
        entry, hashes = public.fetch(name, (to or settings.home / "public" / name).absolute(), mirror)
    if not as_json:
        for path, sha256 in hashes.items():
            click.echo(f"{path}: SHA-256 {sha256}")
    if not wanted.sha256:
        note("the publisher's checksums are not known, so the files were not compared with them")
    (added,) = add_entries(Registry(Store.of(settings)), [entry])
    if added.row is None:
        complain(added.error)
        sys.exit(1)
    sync_partitions(settings)
    answer(
        as_json,
        {"slide_id": added.row.slide_id, "mpp": added.row.mpp, "licence": wanted.licence, "source": wanted.source,
         "sha256": {str(path): sha256 for path, sha256 in hashes.items()}},
        f"{name}: {scale.text(added.row.mpp_xy)} µm/px, from its spots. Now type: stpath-assets run {name}",
    )  # fmt: skip
