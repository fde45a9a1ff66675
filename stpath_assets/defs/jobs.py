"""The jobs: `process_slide` brings slides up to date, `count_catalog` counts rows, `maintain` tidies the lake."""

from datetime import timedelta

import dagster as dg

from stpath_assets.defs.assets.spec import SLIDE_GROUP, one_line_failures
from stpath_assets.settings import Settings
from stpath_assets.storage import Store, maintenance

process_slide = dg.define_asset_job(
    "process_slide",
    selection=dg.AssetSelection.groups(SLIDE_GROUP),
    description="All stages of a slide, from the scan to its scores. Stages that are up to date are not computed again.",
)

count_catalog = dg.define_asset_job(
    "count_catalog",
    selection=dg.AssetSelection.assets("catalog"),
    description="Counts the catalog's parts over all slides.",
)


@dg.op
def maintain_lake(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Merge small parts, expire old snapshots and remove unused files."""
    with one_line_failures():
        done = maintenance.maintain(Store.of(settings), timedelta(days=settings.snapshot_days))
    context.add_output_metadata(done.__dict__)


@dg.job(description="Merges small parts, expires snapshots older than `snapshot_days` and removes unused files.")
def maintain() -> None:
    """Run `stpath-assets maintain`."""
    maintain_lake()


maintain_nightly = dg.ScheduleDefinition(
    name="maintain_nightly", job=maintain, cron_schedule="0 3 * * *", description="Job `maintain`, at night."
)
