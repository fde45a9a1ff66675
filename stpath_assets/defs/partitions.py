"""One dynamic partition per slide, never per tile. Dagster accepts any key; the registry checks ours."""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from stpath_assets.ingestion import read_quarantine
from stpath_assets.slides import Registry

SLIDES = dg.DynamicPartitionsDefinition(name="slides")

# Dagster's own tags of a run of several partitions.
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_PARTITION = "dagster/partition"


def sync(instance: dg.DagsterInstance, registry: Registry) -> list[str]:
    """Make the partitions equal to the live slides and those in quarantine, and return the live ids, sorted.

    The key of a retired slide stays as long as a run or backfill is under way that may name it: Dagster fails a whole backfill of
    which one key is gone.
    """
    live = [row.slide_id for row in registry.live()]
    refused = [q.slide_id for q in read_quarantine(registry.store).values() if q.is_over]
    known = set(instance.get_dynamic_partitions(str(SLIDES.name)))
    new = dict.fromkeys(s for s in (*live, *refused) if s not in known)
    instance.add_dynamic_partitions(str(SLIDES.name), list(new))
    gone = known - {*live, *refused}
    if gone and not has_backfill(instance):
        named = named_by(
            instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)), instance.get_dynamic_partitions(str(SLIDES.name))
        )
        for key in sorted(gone - named):
            instance.delete_dynamic_partition(str(SLIDES.name), key)
    return live


def has_backfill(instance: dg.DagsterInstance) -> bool:
    """Return whether a backfill is under way. It may name any slide."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    under_way = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING]
    return bool(instance.get_backfills(filters=BulkActionsFilter(statuses=under_way), limit=1))


def named_by(runs: Iterable[dg.DagsterRun], keys: Sequence[str]) -> set[str]:
    """Return the keys that runs name, by themselves or as part of a range of `keys`."""
    named = set[str]()
    for run in runs:
        first, last = (run.tags.get(tag, run.tags.get(_PARTITION)) for tag in _RANGE)
        if first in keys and last in keys:
            named.update(keys[keys.index(first) : keys.index(last) + 1])
    return named


def contiguous(keys: Sequence[str], chosen: Sequence[str], most: int) -> Iterator[list[str]]:
    """Yield the chosen keys in the order of `keys`, in groups of neighbours of up to `most`: a run takes a range of keys."""
    wanted, group = set(chosen), list[str]()
    for key in keys:
        if group and (key not in wanted or len(group) == most):
            yield group
            group = []
        if key in wanted:
            group.append(key)
    if group:
        yield group


def range_tags(group: Sequence[str]) -> dict[str, str]:
    """Return the tags of a run of a group of neighbours."""
    if len(group) == 1:
        return {_PARTITION: group[0]}
    return dict(zip(_RANGE, (group[0], group[-1]), strict=True))


UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""States of runs that have not ended."""
