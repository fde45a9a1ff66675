"""How a stage's asset serves the slides of a run, one or many.

    def make(row: Registered) -> Report: ...
    yield from each_slide(context, settings, TILE_GRIDS, make)

Each slide is brought up to date and recorded by itself (`recording`). A bad slide costs the others nothing: later stages of the
run leave it out, and the last one fails with the names and reasons of all bad slides.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import dagster as dg

from stpath_assets.defs.assets.recording import Checked, Recorder, Report, reason_of
from stpath_assets.defs.execution import BY_COMMAND, FAILED
from stpath_assets.errors import StpathError, may_pass
from stpath_assets.ingestion import read_quarantine
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.stages import STAGES, read_failures
from stpath_assets.storage import Store
from stpath_assets.tables import Table

RETRIES = 2
"""How often a stage is tried again whose failure may pass: a server that does not answer, a full memory."""

RETRY_AFTER_S = 30.0
"""Time before the first retry. It doubles for the next."""

# Dagster's own mark for assets that log their events themselves: an output with it counts as yielded, and is not recorded. With
# no output, Dagster would skip the later stages; with a plain one, it would record bad slides as made.
_RECORDED = {"__source_asset_observation__": True}

Results = Iterator[dg.Output[None] | dg.MaterializeResult]


def each_slide(
    context: dg.AssetExecutionContext,
    settings: Settings,
    table: Table,
    make: Callable[[Registered], Report],
    failed_by: Callable[[Exception], Iterable[Checked]] = lambda error: (),
) -> Results:
    """Make the asset for each slide of the run, and record it. `failed_by` returns the checks that a slide's error fails.

    Raises `Failure` with the bad slides of all stages of the run if no later stage follows, or if no slide is left.
    """
    store, slide_ids = Store.of(settings), list(context.partition_keys)
    selected = _selected(context)
    refused = _in_quarantine(store, slide_ids)
    bad = refused | _failed_before(store, ancestors(table.name, selected), slide_ids)
    if len(slide_ids) > 1:
        # Read once: what nobody changes meanwhile is not read again for each slide.
        Registry(store).all()
        store.parts()
    recorder, passing = Recorder(context, settings, store, table, failed_by), list[Exception]()
    for slide_id, reason in refused.items():
        recorder.record_failure(slide_id, reason)
    left_out = _retired(store, slide_ids)
    for slide_id in left_out:
        context.log.warning(f"{slide_id}: was retired, so it is left out")
    for slide_id in slide_ids:
        if slide_id in bad or slide_id in left_out:
            continue
        try:
            recorder.record(slide_id, make)
        except Exception as e:
            if not isinstance(e, StpathError):
                context.log.exception(f"{slide_id}: {e}")
            bad[slide_id] = recorder.reason(slide_id, e)
            passing += [e] if may_pass(e) else []
    # A command does not retry: its user sees the error at once.
    if passing and BY_COMMAND not in context.run.tags and context.retry_number < RETRIES:
        raise dg.RetryRequested(RETRIES, RETRY_AFTER_S * 2**context.retry_number) from passing[0]
    if bad and (is_last(table.name, selected) or len(bad) + len(left_out) == len(slide_ids)):
        raise _failure(bad, len(slide_ids))
    for spec in context.assets_def.check_specs:
        yield dg.Output(None, output_name=spec.get_python_identifier())
    yield dg.MaterializeResult(metadata=_RECORDED)


def ancestors(stage: str, selected: Iterable[str]) -> set[str]:
    """Return the selected stages that run before a stage: its parents, and theirs, as far as they are selected."""
    among, found = set(selected), set[str]()
    new = [stage]
    while new:
        new = [p for s in new for p in STAGES[s].parents if p in among and p not in found]
        found.update(new)
    return found


def is_last(stage: str, selected: Iterable[str]) -> bool:
    """Return whether no selected stage waits for this one."""
    return not any(stage in STAGES[other].parents for other in selected)


def _selected(context: dg.AssetExecutionContext) -> set[str]:
    """Return the stages of the run."""
    steps = context.run.step_keys_to_execute  # only in a run that repeats failed steps of another
    names = {node.name for node in context.job_def.nodes}
    return {name for name in STAGES if name in names and (steps is None or name in steps)}


def _retired(store: Store, slide_ids: Sequence[str]) -> set[str]:
    """Return the slides of a run of several that were retired after it was asked for. A run of one such slide fails."""
    if len(slide_ids) == 1:
        return set()
    ready = {row.slide_id: row.status == "ready" for row in Registry(store).all()}
    retired = {slide_id for slide_id in slide_ids if not ready.get(slide_id, True)}
    return retired if len(retired) < len(slide_ids) else set()


def _in_quarantine(store: Store, slide_ids: Sequence[str]) -> dict[str, str]:
    """Return why slides could not be registered, by slide."""
    refused = {scan.slide_id: scan.why for scan in read_quarantine(store).values() if scan.is_over}
    registered = {row.slide_id for row in Registry(store).all()} if refused else set()
    return {s: refused[s] for s in slide_ids if s in refused and s not in registered}


def _failed_before(store: Store, before: set[str], slide_ids: Sequence[str]) -> dict[str, str]:
    """Return why slides failed in earlier stages of the run, by slide."""
    if not before:
        return {}
    failures, bad = read_failures(store), dict[str, str]()
    for stage in (s for s in STAGES if s in before):
        for slide_id in slide_ids:
            if (stage, slide_id) in failures:
                bad.setdefault(slide_id, reason_of(slide_id, failures[stage, slide_id].reason))
    return bad


def _failure(bad: dict[str, str], of: int) -> dg.Failure:
    reasons = " | ".join(bad.values())
    text = reasons if of == 1 else f"{len(bad)} of {of} slides failed, the others are kept: {reasons}"
    return dg.Failure(text, metadata={FAILED: bad}, allow_retries=False)
