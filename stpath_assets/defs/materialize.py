"""Materializes slides through Dagster from the command line, into the instance that the UI shows.

One run a slide, in this process: a model is loaded once for all of them, and one bad slide fails its own run alone.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from sqlalchemy.exc import DBAPIError

from stpath_assets.defs.partitions import sync
from stpath_assets.errors import StorageError
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, atomic_file

_PROCESS = "stpath/process"
_CONFIG = Path(__file__).with_name("dagster.yaml")


@dataclass(frozen=True)
class Outcome:
    """How a slide's run ended: one-line reasons of the steps that failed, none if it went well, and what to tell the user."""

    slide_id: str
    errors: tuple[str, ...]
    notes: tuple[str, ...] = ()


@contextmanager
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a data root; its configuration is put there the first time."""
    home = settings.home / "dagster"
    if not (home / "dagster.yaml").exists():
        with atomic_file(home / "dagster.yaml") as draft:
            shutil.copyfile(_CONFIG, draft)
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        with dg.DagsterInstance.get() as opened:
            yield opened
    except DBAPIError as e:
        raise StorageError(f"{home}: Dagster's records cannot be read or written ({e.orig}); is the disk full?") from e
    finally:
        if before is None:
            del os.environ["DAGSTER_HOME"]
        else:
            os.environ["DAGSTER_HOME"] = before


def sync_partitions(settings: Settings) -> list[str]:
    """Makes the partitions that the UI shows the live slides; returns their ids."""
    with instance(settings) as opened:
        return sync(opened, Registry(Store.of(settings)))


def materialize(settings: Settings, slide_ids: Sequence[str]) -> list[Outcome]:
    """Runs job `main` for each slide and then `count_catalog`; failures are values, and the other slides go on."""
    from stpath_assets.defs.build import code_location

    defs, outcomes = code_location(), []
    with instance(settings) as opened:
        release_dead(opened)
        sync(opened, Registry(Store.of(settings)))
        config = _run_config(settings)
        for slide_id in slide_ids:
            ran = defs.resolve_job_def("main").execute_in_process(
                run_config=config,
                instance=opened,
                partition_key=slide_id,
                raise_on_error=False,
                tags={_PROCESS: _this_process()},
            )
            outcomes.append(Outcome(slide_id, tuple(_reasons(ran)), tuple(_notes(ran))))
        ran = defs.resolve_job_def("count_catalog").execute_in_process(
            run_config=config, instance=opened, raise_on_error=False
        )
        if not ran.success:
            outcomes.append(Outcome("catalog", tuple(_reasons(ran))))
    return outcomes


def release_dead(opened: dg.DagsterInstance) -> list[str]:
    """Ends the runs of this host whose process is gone, and gives back the pool slots they held; returns their ids.

    A run that was killed cannot do so itself, and the next one would wait for its slot for ever.
    """
    released = []
    for run in opened.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        if _is_dead(run.tags.get(_PROCESS, "")):
            opened.report_run_failed(run, "its process is gone: killed, or the machine went down")
            opened.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            released.append(run.run_id)
    return released


def _this_process() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def _is_dead(process: str) -> bool:
    """Whether a process of this host is gone; of another host's, nobody here can tell."""
    host, _, rest = process.partition("/")
    if host != socket.gethostname():
        return False
    pid, _, created = rest.partition("/")
    try:
        # A process id is used again; the time of creation is not.
        return f"{psutil.Process(int(pid)).create_time():.0f}" != created
    except psutil.NoSuchProcess:
        return True


def _run_config(settings: Settings) -> dict[str, Any]:
    chosen = {"home": str(settings.home), **settings.asked}
    return {
        "resources": {"settings": {"config": chosen}},
        # Events are stored all the same; on a terminal the command says what matters itself.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }


def _notes(ran: dg.ExecuteInProcessResult) -> Iterator[str]:
    """What the assets that were computed anew say of the slide, a line each."""
    for event in ran.all_events:
        if event.is_step_materialization:
            metadata = event.step_materialization_data.materialization.metadata
            if "notes" in metadata and metadata["made"].value:
                yield from (line.removeprefix("- ") for line in str(metadata["notes"].value).splitlines())


def _reasons(ran: dg.ExecuteInProcessResult) -> Iterator[str]:
    """One line for each step that failed by itself: the message meant for the user, or what broke and where."""
    for event in ran.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            yield data.user_failure_data.description
        elif data.error:
            root = data.error
            while root.cause:
                root = root.cause
            if "ExecutionInterrupted" in f"{data.error.to_string()}":
                # Dagster records an interrupt as a failure of the step, below whatever was under way. To the user it is the end,
                # not a bad slide.
                raise KeyboardInterrupt
            yield f"{event.step_key}: {' '.join(root.message.split())} (a bug; the traceback is in run {ran.run_id})"
