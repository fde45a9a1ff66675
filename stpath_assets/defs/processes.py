"""The processes of runs: none outlives its run, and no run its process."""

import multiprocessing
import os
import socket
import threading
from multiprocessing import connection
from typing import Any

import dagster as dg
import psutil

PROCESS = "stpath/process"
"""Tag of a run with the process that it runs in, so that a run whose process is gone can be told."""

_STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
_FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_LAUNCHED = ".dagster/grpc_info"  # Dagster's own tag of the runs that its launcher started


def process_of(process: psutil.Process) -> str:
    """Return a process as text: host, process id and creation time, because process ids are used again."""
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def find_process(said: str) -> psutil.Process | None:
    """Return the process of this host that `process_of` told, or None if it is gone."""
    pid, _, _ = said.partition("/")[2].partition("/")
    try:
        process = psutil.Process(int(pid))
        return process if process_of(process) == said and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def is_here(run: dg.DagsterRun) -> bool:
    """Return whether a run tells its process, and that is one of this host. Another host's cannot be looked at."""
    return run.tags.get(PROCESS, "").partition("/")[0] == socket.gethostname()


def tell_process(run: dg.DagsterRun | None, instance: dg.DagsterInstance | None) -> None:
    """Tag a run with its process, which is this one, or that which started this one for a step."""
    if run is None or instance is None or PROCESS in run.tags:
        return
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None and "multiprocess" in _execution(run) else None
    try:
        instance.add_run_tags(run.run_id, {PROCESS: process_of(psutil.Process(pid))})
    except psutil.NoSuchProcess:
        return  # the run was killed just now; so is this step


def _execution(run: dg.DagsterRun) -> Any:
    chosen: Any = run.run_config.get("execution", {})
    return chosen.get("config", {})


def end_with_run(run: dg.DagsterRun | None) -> None:
    """If this is the process of a step, end it as soon as the process of its run is gone.

    Otherwise a step goes on after its run was killed: it would take the GPU for work that nobody records.
    """
    parent = multiprocessing.parent_process()
    if run is None or parent is None or "multiprocess" not in _execution(run):
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="end with the run", daemon=True).start()


def release_dead(opened: dg.DagsterInstance) -> list[str]:
    """End this host's runs whose process is gone, and free their pool slots. Returns their ids.

    A killed run cannot do so itself, and the next run would wait for its slot for ever. Dagster notices it only while the code
    server that started the run is there.
    """
    released = []
    for run in opened.get_runs(dg.RunsFilter(statuses=_STARTED)):
        if is_here(run) and find_process(run.tags[PROCESS]) is None:
            opened.report_run_failed(run, "its process is gone: killed, or the machine went down")
            opened.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            released.append(run.run_id)
    return released


def end_orphans(opened: dg.DagsterInstance, most: int = 200) -> list[str]:
    """Kill this host's processes that still work for a run that is over: nobody would record what they make.

    Looks at the latest runs. Returns the ids of those whose process was killed.
    """
    ended = []
    for run in opened.get_runs(dg.RunsFilter(statuses=_FAILED), limit=most):
        # Only processes that Dagster's launcher started for one run: a command or a notebook may go on after its run.
        if not is_here(run) or _LAUNCHED not in run.tags:
            continue
        process = find_process(run.tags[PROCESS])
        if process is not None:
            for child in [*process.children(recursive=True), process]:
                child.kill()
            ended.append(run.run_id)
    return ended
