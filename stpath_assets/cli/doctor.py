"""`doctor`: checks that everything is there and intact."""

import sys
from pathlib import Path

import click

from stpath_assets.cli.options import begin, common, json_option


@click.command()
@click.option("--gigapath", "compare", is_flag=True, help="Embed a tile and compare with its published embedding.")
@click.option("--tile", type=click.Path(path_type=Path), help="With --gigapath: the tile, prov_normal_000_1.png.")
@click.option(
    "--embedding", type=click.Path(path_type=Path), help="With --gigapath: its embedding, prov_normal_000_1.pt."
)
@click.option("--checksums/--no-checksums", default=True, help="Read every stored file and compare its SHA-256.")
@json_option
@common
def doctor(
    home: str | None, compare: bool, tile: Path | None, embedding: Path | None, checksums: bool, as_json: bool
) -> None:
    """Check data root, weights and device.

    Also ends dead runs. The exit code is 1 if something is wrong.

    \b
    stpath-assets doctor
    stpath-assets doctor --no-checksums --json
    """
    from stpath_assets.cli.terminal import show_checks
    from stpath_assets.defs.doctor import all_checks

    if compare != (tile is not None) or compare != (embedding is not None):
        raise click.UsageError("--gigapath, --tile and --embedding belong together")
    begin("checking")
    sys.exit(0 if show_checks(all_checks(home, checksums, tile, embedding), as_json) else 1)
