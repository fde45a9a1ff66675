"""`add`: registers scans."""

import sys
from typing import Any

import click

from stpath_assets.cli.options import common, complain, mpp_option, note
from stpath_assets.errors import StpathError


@click.command()
@click.argument("scans", metavar="SLIDE...", nargs=-1, required=True, type=click.Path())
@click.option("--organ", help="Organ, by STPath's names (Breast, Brain, ...); or none.")
@click.option("--tech", help="Technology: Visium, ST, Xenium or Visium HD; or none.")
@mpp_option(from_file=True)
@click.option(
    "--spots", type=click.Path(), help="Measured expression: *_counts.tsv.gz, .h5ad or a Visium folder; or none."
)
@click.option(
    "--regions", type=click.Path(), help="GeoJSON of regions that replace or restrict the tissue mask; or none."
)
@click.option("--features", type=click.Path(), help="Imported GigaPath features, TRIDENT's .h5; or none.")
@click.option("--patient", help="Patient of the section.")
@click.option("--id", "slide_id", help="A slide_id of your own.")
@common
def add(scans: tuple[str, ...], home: str | None, **known: Any) -> None:
    """Register scans. They are read in place, never moved."""
    from stpath_assets.features import trident
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry, scale
    from stpath_assets.storage import Store

    if len(scans) > 1 and any(known[name] for name in ("slide_id", "spots", "regions", "features")):
        raise click.UsageError("--id, --spots, --regions and --features belong to one slide: add it by itself")
    settings = load_settings(home)
    registry, added, notes = Registry(Store.of(settings)), 0, list[str]()
    for scan in scans:
        try:
            notes.clear()
            row = registry.add(scan, check=lambda row: notes.extend(trident.check(row)), **known)
        except StpathError as e:
            complain(str(e))
            continue
        added += 1
        for warning in (*row.warnings, *notes):
            note(warning)
        click.echo(
            f"{row.slide_id}: {row.width_px} x {row.height_px} px, {scale.text(row.mpp_xy, 'g')} µm/px ({row.mpp_source}), "
            f"{row.organ or 'organ not given'}, {row.tech or 'technology not given'}"
        )
    if added:
        from stpath_assets.defs.materialize import sync_partitions

        sync_partitions(settings)
    sys.exit(0 if added == len(scans) else 1)
