"""One dynamic partition per slide, never per tile. Dagster accepts any key; the registry checks ours."""

from collections.abc import Iterator, Sequence

import dagster as dg

from stpath_assets.slides import Registry

SLIDES = dg.DynamicPartitionsDefinition(name="slides")

# Dagster's own tags of a run of several partitions.
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_PARTITION = "dagster/partition"


def sync(instance: dg.DagsterInstance, registry: Registry) -> list[str]:
    """Make the partitions equal to the live slides, and return their ids, sorted.

    The key of a retired slide stays as long as a run or backfill is under way that may name it: Dagster fails a whole backfill of
    which one key is gone.
    """
    live = [row.slide_id for row in registry.live()]
    known = set(instance.get_dynamic_partitions(str(SLIDES.name)))
    instance.add_dynamic_partitions(str(SLIDES.name), [s for s in live if s not in known])
    for gone in sorted(known - set(live)):
        if not _is_named(instance, gone):
            instance.delete_dynamic_partition(str(SLIDES.name), gone)
    return live


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


def _is_named(instance: dg.DagsterInstance, key: str) -> bool:
    """Return whether a run or backfill that is under way may name a key. One of several keys counts as naming all."""
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    under_way = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING]
    if instance.get_backfills(filters=BulkActionsFilter(statuses=under_way), limit=1):
        return True
    runs = instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY))
    return any(run.tags.get(_PARTITION) == key or _RANGE[0] in run.tags for run in runs)


UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""States of runs that have not ended."""
