"""The jobs: `process_slide` brings slides up to date, `register_scans` and `rescan` look after the inbox, `retire_slides`
retires, `count_catalog` counts rows, `fit_references` fits predictors, `check_cohort` also checks, `maintain` tidies the lake.
"""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from stpath_assets.defs.assets.recording import failure_event
from stpath_assets.defs.assets.spec import CAN_BE_MADE, one_line_failures
from stpath_assets.defs.partitions import sync
from stpath_assets.features import trident
from stpath_assets.ingestion import forget_gone, read_inbox, register_arrivals
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES
from stpath_assets.storage import Store, maintenance
from stpath_assets.tables import REFERENCE_MODELS, SLIDES

process_slide = dg.define_asset_job(
    "process_slide",
    selection=dg.AssetSelection.assets(*STAGES),
    description="All stages of a slide, from the scan to its scores. Stages that are up to date are not computed again.",
)

count_catalog = dg.define_asset_job(
    "count_catalog",
    selection=dg.AssetSelection.assets("catalog").without_checks(),
    description="Counts the catalog's parts over all slides.",
)

fit_references = dg.define_asset_job(
    "fit_references",
    selection=dg.AssetSelection.assets(REFERENCE_MODELS.name),
    description="Fits predictors again where the features or spots of their slides have changed.",
)

check_cohort = dg.define_asset_job(
    "check_cohort",
    selection=dg.AssetSelection.assets("catalog"),
    description="Counts the catalog, and checks the cohort: which slides have failed, and whether scans wait in the inbox.",
)


class Arrivals(dg.Config):
    """What `register_scans` registers: the paths of scans, each with what the sensor saw."""

    arrivals: dict[str, str] = Field(description="Digest of file and sidecar, by path.")


@dg.op
def register(context: dg.OpExecutionContext, config: Arrivals, settings: dg.ResourceParam[Settings]) -> None:
    """Register scans of the inbox. One that cannot be registered goes into quarantine, and the others go on."""
    store, inbox = Store.of(settings), read_inbox(settings)
    # A file or sidecar that has changed since the sensor saw it waits until it stands still again.
    arrivals = [a for a in inbox.arrivals if config.arrivals.get(a.entry.scan) == a.digest]
    with one_line_failures():
        forget_gone(store)
        rows, refused = register_arrivals(store, arrivals, check=trident.check)
        sync(context.instance, Registry(store))
    owners = {row.slide_id: row.uri for row in Registry(store).all()}
    for scan in refused:
        context.log.warning(scan.reason)
        if owners.get(scan.slide_id, scan.uri) == scan.uri:  # else the id is that of another, good scan
            _fail(context.instance, scan.slide_id, scan.reason, scan.uri)
    context.add_output_metadata({"registered": len(rows), "in_quarantine": len(refused)})


@dg.job(description="Registers scans of the inbox. The sensor `new_scans` asks for it.")
def register_scans() -> None:
    """Register what arrived."""
    register()


@dg.op
def look_again(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Look whether the scan of every slide is still there, and record those that are gone or replaced as failed checks."""
    store = Store.of(settings)
    if not store.is_there():
        return
    with one_line_failures():
        forgotten = forget_gone(store)
        sync(context.instance, Registry(store))
        bad = {row: why for row in Registry(store).live() if (why := row.trouble(at_urls=True)) is not None}
    for row, why in bad.items():
        context.log.warning(f"{row.slide_id}: {why}")
        _fail(context.instance, row.slide_id, f"{row.slide_id}: {why}", row.uri)
    context.add_output_metadata({"gone_or_replaced": len(bad), "left_quarantine": len(forgotten)})


@dg.job(description="Looks whether the scan of every slide is still there and the same. No scan is opened.")
def rescan() -> None:
    """Look at all scans."""
    look_again()


rescan_nightly = dg.ScheduleDefinition(
    name="rescan_nightly", job=rescan, cron_schedule="0 2 * * *", description="Job `rescan`, at night."
)


class Retired(dg.Config):
    """What `retire_slides` retires."""

    slide_ids: list[str] = Field(description="Slides to take out of the catalog and of later runs.")
    reason: str | None = Field(default=None, description="Why; shown by `status`.")


@dg.op
def retire(context: dg.OpExecutionContext, config: Retired, settings: dg.ResourceParam[Settings]) -> None:
    """Retire slides. The partition of one that a run or backfill names stays until that ends."""
    registry = Registry(Store.of(settings))
    with one_line_failures():
        for row in [registry.get(slide_id) for slide_id in config.slide_ids]:  # all, or none if one is not there
            registry.retire(row.slide_id, config.reason)
            context.log.info(f"{row.slide_id}: retired")
        sync(context.instance, registry)


@dg.job(description="Takes slides out of the catalog and of later runs, as `stpath-assets retire`. Nothing is deleted.")
def retire_slides() -> None:
    """Retire slides."""
    retire()


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


def _fail(instance: dg.DagsterInstance, slide_id: str, reason: str, scan: str) -> None:
    """Record why a scan cannot be used: as a failed check of its slide, and among the events of its partition."""
    asset, why = dg.AssetKey(SLIDES.name), {"reason": reason, "scan": scan}
    failed = dg.AssetCheckEvaluation(asset, CAN_BE_MADE, False, why, blocking=False, partition=slide_id)
    instance.report_runless_asset_event(failed)
    instance.report_runless_asset_event(failure_event(asset, slide_id, why))


maintain_nightly = dg.ScheduleDefinition(
    name="maintain_nightly", job=maintain, cron_schedule="0 3 * * *", description="Job `maintain`, at night."
)

check_daily = dg.ScheduleDefinition(
    name="check_daily", job=check_cohort, cron_schedule="0 6 * * *", description="Job `check_cohort`, in the morning."
)
