"""Materializes slides through Dagster from the command line, in the instance that the UI shows.

Runs of several slides, all in this process. A model is loaded once for all of them, and a bad slide costs the others nothing.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import dagster as dg
import psutil
import yaml
from sqlalchemy.exc import DBAPIError

from stpath_assets.defs.execution import BY_COMMAND, FAILED
from stpath_assets.defs.partitions import SLIDES, contiguous, range_tags, sync
from stpath_assets.defs.processes import PROCESS, process_of, release_dead
from stpath_assets.errors import StorageError, failure_of_machine, one_line
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, atomic_file
from stpath_assets.storage.locks import lock

_CONFIG = Path(__file__).with_name("dagster.yaml")


@dataclass(frozen=True)
class RunOutcome:
    """How a slide's run ended: a one-line reason for each failed step, empty on success, and notes for the user."""

    slide_id: str
    errors: tuple[str, ...]
    notes: tuple[str, ...] = ()


_WAIT_S = 120.0
_RECORDS = ("schedules", "history")
"""Folders with Dagster's databases. The last to be there says that all are."""


@contextmanager
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Return the Dagster instance of a data root. The first call creates its configuration."""
    home = settings.home / "dagster"
    if not (home / "dagster.yaml").exists():
        with atomic_file(home / "dagster.yaml") as draft:
            shutil.copyfile(_CONFIG, draft)
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with lock(settings.home / "locks" / "dagster.lock", _WAIT_S, f"{home}: Dagster's records"):
            _create_records(home)
            opened = dg.DagsterInstance.get()
        with opened:
            yield opened
    except DBAPIError as e:
        raise StorageError(f"{home}: Dagster's records cannot be read or written ({e.orig}); is the disk full?") from e
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


def _create_records(home: Path) -> None:
    """Create Dagster's SQLite databases beside, and move them into place once they are complete.

    Dagster does not notice if it was killed while it created them, or if the disk was full: tables are missing for ever. Nor if
    two processes create them at once.
    """
    config = yaml.safe_load((home / "dagster.yaml").read_text()) or {}
    if (home / _RECORDS[-1]).exists() or any(key.endswith("storage") for key in config):
        return
    for dead in home.glob(".new-*"):
        shutil.rmtree(dead, ignore_errors=True)
    draft = home / f".new-{os.getpid()}"
    draft.mkdir(parents=True)
    shutil.copyfile(home / "dagster.yaml", draft / "dagster.yaml")
    try:
        with dg.DagsterInstance.from_config(str(draft)):
            pass
        for name in _RECORDS:
            if (draft / name).exists() and not (home / name).exists():
                (draft / name).rename(home / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sync_partitions(settings: Settings) -> list[str]:
    """Make the partitions in the UI equal to the live slides, and return their ids."""
    with instance(settings) as opened:
        return sync(opened, Registry(Store.of(settings)))


def record_references(settings: Settings, fitted: dict[str, bool]) -> None:
    """Record in Dagster that predictors were fitted by a command; `fitted` says which, by model."""
    from stpath_assets.defs.assets.references import materialization_of

    with instance(settings) as opened:
        opened.report_runless_asset_event(materialization_of(Store.of(settings), fitted))


def materialize(settings: Settings, slide_ids: Sequence[str]) -> list[RunOutcome]:
    """Run job `process_slide` for the slides, some at a time, then `count_catalog`. Failures are returned as values."""
    from stpath_assets.defs.build import code_location

    defs, outcomes = code_location(), []
    with instance(settings) as opened, _streams_kept():
        release_dead(opened)
        sync(opened, Registry(Store.of(settings)))
        config, keys = _run_config(settings), opened.get_dynamic_partitions(str(SLIDES.name))
        for group in contiguous(keys, slide_ids, settings.slides_per_run):
            ran = defs.resolve_job_def("process_slide").execute_in_process(
                run_config=config,
                instance=opened,
                raise_on_error=False,
                tags={BY_COMMAND: "true", PROCESS: process_of(psutil.Process()), **range_tags(group)},
            )
            notes, reasons = _notes(opened, ran.run_id), _reasons(ran, group)
            outcomes += [RunOutcome(s, tuple(reasons.get(s, ())), tuple(notes.get(s, ()))) for s in group]
        ran = defs.resolve_job_def("count_catalog").execute_in_process(
            run_config=config, instance=opened, raise_on_error=False
        )
        if not ran.success:
            outcomes.append(RunOutcome("catalog", tuple(_reasons(ran, ["catalog"])["catalog"])))
    return outcomes


@contextmanager
def _streams_kept() -> Iterator[None]:
    """Restore standard output and error afterwards. Dagster points them to its logs during a step, and on a full disk fails to
    point them back, so that no error would reach the user.
    """
    kept = [(stream, os.dup(stream.fileno()), stream.fileno()) for stream in _with_descriptor(sys.stdout, sys.stderr)]
    try:
        yield
    finally:
        for stream, copy, descriptor in kept:
            with suppress(OSError):
                stream.flush()
            os.dup2(copy, descriptor)
            os.close(copy)


def _with_descriptor(*streams: TextIO) -> Iterator[TextIO]:
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):  # captured by a test, or closed
            stream.fileno()
            yield stream


def _run_config(settings: Settings) -> dict[str, Any]:
    chosen = {"home": str(settings.home), **settings.asked}
    return {
        "resources": {"settings": {"config": chosen}},
        # Events are stored anyway; on a terminal, the command itself prints what matters.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }


def _notes(opened: dg.DagsterInstance, run_id: str) -> dict[str, list[str]]:
    """Return the notes of what was computed in a run, one line each, by slide."""
    notes: dict[str, list[str]] = {}
    for event in opened.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        materialization = event.asset_materialization
        if materialization and "notes" in materialization.metadata and materialization.metadata["made"].value:
            said = str(materialization.metadata["notes"].value).splitlines()
            notes.setdefault(str(materialization.partition), []).extend(said)
    return notes


def _reasons(ran: dg.ExecuteInProcessResult, slide_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return why slides failed, one line for each step that failed by itself.

    A step tells the slides that failed in it. One that fails otherwise has failed for all slides of the run.
    """
    reasons: dict[str, list[str]] = {}
    for event in ran.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        failure = data.user_failure_data
        if failure and FAILED in failure.metadata:
            failed: Any = failure.metadata[FAILED].value
            for slide_id, reason in failed.items():
                reasons.setdefault(slide_id, []).append(reason)
            continue
        said = failure.description if failure and failure.description else _bug(event, ran.run_id)
        for slide_id in slide_ids:
            reasons.setdefault(slide_id, []).append(said)
    return reasons


def _bug(event: dg.DagsterEvent, run_id: str) -> str:
    """Return a step's exception as one line. Raises `KeyboardInterrupt` if it was interrupted."""
    error = event.step_failure_data.error
    if error is None:
        return f"{event.step_key}: failed (see run {run_id})"
    root = error
    while root.cause:
        root = root.cause
    if "ExecutionInterrupted" in error.to_string():
        # Dagster records an interrupt as a failure of the current step, with the interrupt as its cause. For the user it is the
        # end of the run, not a bad slide.
        raise KeyboardInterrupt
    said = failure_of_machine(root.message)
    return f"{event.step_key}: {said or f'{one_line(root.message)} (a bug; the traceback is in run {run_id})'}"
