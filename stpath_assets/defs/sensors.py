"""The sensor that watches the inbox. It lists files and asks for runs, and never opens a scan."""

import time
from collections.abc import Container, Iterator, Sequence

import dagster as dg

from stpath_assets.defs import jobs
from stpath_assets.defs.assets.model import observation_of, observe
from stpath_assets.defs.partitions import SLIDES, UNDER_WAY, contiguous, has_backfill, named_by, range_tags, sync
from stpath_assets.defs.processes import release_dead
from stpath_assets.ingestion import (
    MAX_TRIES,
    Arrival,
    Memory,
    choose_arrivals,
    choose_turns,
    done_of,
    is_time,
    note_asked,
    read_inbox,
)
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.stages import Plan, Wanted, find_wanted, keep_failure
from stpath_assets.storage import Store

EVERY_S = 30
MOST_SCANS = 500
"""Most scans that one run registers. The rest follow in later ticks."""
MOST_RUNS = 4
"""Most runs that the sensor has under way at a time, so that a run asked for by hand does not wait behind hundreds."""

_DIED = (
    f"{{slide}}: its run ended {MAX_TRIES} times without a result or a reason, most likely killed for want of memory; look at "
    "its last run, then run it by hand"
)


@dg.sensor(
    jobs=[jobs.register_scans, jobs.process_slide],
    minimum_interval_seconds=EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Watches the inbox. Registers scans whose file has not changed for two ticks. Asks for runs of new and outdated slides "
        "when there are enough for a full run, or when the first has waited for `inbox_wait_s`."
    ),
)
def new_scans(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Ask for the runs that the inbox and the registered slides need."""
    for run_id in release_dead(context.instance):
        context.log.warning(f"run {run_id} was ended: its process is gone")
    store, memory = Store.of(settings), Memory.load(context.cursor)
    inbox = read_inbox(settings)
    for problem in inbox.problems:
        context.log.warning(problem)
    is_there = store.is_there()
    chosen, memory = choose_arrivals(
        inbox.arrivals, done_of(store, inbox.arrivals) if is_there else {}, memory, MOST_SCANS
    )
    requests = list(_registrations(context.instance, chosen))
    if is_there:
        wanted, busy, keys = _wanted(context.instance, store, settings)
        made_from = {w.slide_id: w.made_from for w in wanted}
        turns = choose_turns({slide: what for slide, what in made_from.items() if slide not in busy}, memory)
        for slide in (w for w in wanted if w.slide_id in turns.given_up):
            keep_failure(store, slide.stage, slide.slide_id, _DIED.format(slide=slide.slide_id), slide.made_from)
            context.log.warning(_DIED.format(slide=slide.slide_id))
        waiting = len(turns.together) + len(turns.alone)
        go, memory = is_time(waiting, settings.slides_per_run, settings.inbox_wait_s, time.time(), memory)
        groups = [*contiguous(keys, turns.together, settings.slides_per_run), *([slide] for slide in turns.alone)]
        free = MOST_RUNS - _count(context.instance, jobs.process_slide.name)
        chosen_groups = groups[: max(0, free)] if go else []
        requests += [dg.RunRequest(job_name=jobs.process_slide.name, tags=range_tags(group)) for group in chosen_groups]
        memory = note_asked(made_from, [slide for group in chosen_groups for slide in group], memory)
    incomplete = len(memory.seen) - len(chosen)
    reason = None if requests else f"{len(inbox.arrivals)} scans in the inbox, {incomplete} of them not complete yet"
    return dg.SensorResult(run_requests=requests, cursor=memory.dump(), skip_reason=reason)


def _registrations(instance: dg.DagsterInstance, chosen: Sequence[Arrival]) -> Iterator[dg.RunRequest]:
    """Yield the run that registers arrivals, unless one is under way: what that leaves is chosen again."""
    if chosen and not _count(instance, jobs.register_scans.name):
        config = {"arrivals": {a.entry.scan: a.digest for a in chosen}}
        yield dg.RunRequest(job_name=jobs.register_scans.name, run_config={"ops": {"register": {"config": config}}})


def _wanted(
    instance: dg.DagsterInstance, store: Store, settings: Settings
) -> tuple[list[Wanted], Container[str], list[str]]:
    """Return the slides that need a run, those that have one under way, and all partition keys in their order."""
    sync(instance, Registry(store))
    keys = list(instance.get_dynamic_partitions(str(SLIDES.name)))
    wanted = list(find_wanted(store, Plan(settings)))
    if has_backfill(instance):
        return wanted, {w.slide_id for w in wanted}, keys
    return wanted, named_by(instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)), keys), keys


def _count(instance: dg.DagsterInstance, job: str) -> int:
    return int(instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=UNDER_WAY)))


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes the asset `model`, so that slides show as stale after a change of settings. Runs nothing.",
)
def model_changed(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Record the model if it has changed since the last tick."""
    now = observation_of(settings)
    if context.cursor == now.data_version:
        return dg.SensorResult(skip_reason="the model is the same")
    observe(context.instance, settings)
    return dg.SensorResult(cursor=now.data_version, skip_reason="the model was observed")


catalog_changed = dg.AutomationConditionSensorDefinition(
    "catalog_changed",
    target=dg.AssetSelection.assets("catalog"),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
    description="Counts the catalog again after the data of a slide has changed.",
)
