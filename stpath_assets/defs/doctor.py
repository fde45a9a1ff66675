"""Doctor's check of Dagster's records. It ends dead runs, frees the pool slots that they hold, kills processes of runs that are
over, and makes the partitions equal to the slides.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import SLIDES, UNDER_WAY, sync
from stpath_assets.defs.processes import end_orphans, release_dead
from stpath_assets.doctor import Check, checks, compare_with_published
from stpath_assets.errors import StpathError, describe
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store

_NAME = "dagster"


def all_checks(
    home: str | None, checksums: bool = True, tile: Path | None = None, embedding: Path | None = None
) -> Iterator[Check]:
    """Yield every check, including Dagster's, as each is done."""

    try:
        settings = load_settings(home)
    except StpathError as e:
        yield Check("settings", False, str(e))
        return
    yield Check("settings", True, str(settings.home))
    yield records(settings)
    yield from checks(settings, checksums)
    if tile is not None and embedding is not None:
        yield compare_with_published(settings, tile, embedding)


def records(settings: Settings) -> Check:
    """Check that the records open, and mend them. Says what was mended."""
    if not (settings.home / "dagster").exists():
        return Check(_NAME, True, "no records yet")
    try:
        with instance(settings) as opened:
            dead = release_dead(opened)
            orphans = end_orphans(opened)
            freed = release_slots(opened)
            added, removed = mend_partitions(opened, settings)
            runs, busy = opened.get_runs_count(), opened.get_runs_count(dg.RunsFilter(statuses=UNDER_WAY))
    except Exception as e:  # Dagster's own types, YAML's, the database's; for an operator they mean the same
        said = f"cannot be opened ({describe(e)})"
        return Check(_NAME, False, said, f"check {settings.home / 'dagster'}: dagster.yaml, and the disk")
    said = f"{runs} runs on record, {busy} under way"
    if dead:
        said += f"; ended {len(dead)} that were dead: {', '.join(r[:8] for r in dead[:5])}"
    if freed:
        said += f"; freed the pool slots of {len(freed)} runs that are over: {', '.join(r[:8] for r in freed[:5])}"
    if orphans:
        said += f"; killed the processes of {len(orphans)} runs that are over: {', '.join(r[:8] for r in orphans[:5])}"
    if added or removed:
        said += f"; added {added} partitions that were missing, removed {removed} without a slide"
    return Check(_NAME, True, said)


def mend_partitions(opened: dg.DagsterInstance, settings: Settings) -> tuple[int, int]:
    """Make the partitions equal to the slides. Returns how many were added and removed."""
    store = Store.of(settings)
    if not store.is_there():
        return 0, 0
    before = set(opened.get_dynamic_partitions(str(SLIDES.name)))
    sync(opened, Registry(store))
    after = set(opened.get_dynamic_partitions(str(SLIDES.name)))
    return len(after - before), len(before - after)


def release_slots(opened: dg.DagsterInstance) -> list[str]:
    """Free the pool slots held or waited for by finished or deleted runs. Returns the ids of those runs."""
    storage = opened.event_log_storage
    released = []
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for run_id in sorted(info.active_run_ids | info.assigned_run_ids | info.pending_run_ids):
            run = opened.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)
                released.append(run_id)
    return released
