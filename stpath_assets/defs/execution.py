"""Where the steps of a run execute: in the run's own process, unless the launchpad says otherwise.

A killed run takes its work with it, and a model is loaded once for all of the run's slides.
"""

import multiprocessing
import os
import socket
import threading
from multiprocessing import connection
from typing import Any

import dagster as dg
import psutil

BY_COMMAND = "stpath/command"
"""Tag of the runs that a command makes in its own process."""

PROCESS = "stpath/process"
"""Tag of a run with the process that it runs in, so that a run whose process is gone can be told."""

FAILED = "failed"
"""Metadata of a stage's failure: why slides failed, by slide."""

_PROCESSES = dg.Field(
    {"max_concurrent": dg.Field(int, default_value=2, description="Most steps at a time.")},
    description="A process a step, which ends with the run. Starting one takes some seconds.",
)
_IN_PROCESS = dg.Field({}, description="The run's own process.")


def _chosen(config: dict[str, Any]) -> dict[str, Any]:
    if "multiprocess" not in config:
        return {"in_process": {}}
    # A fork server loads the code location once, where `spawn` would load it for each step.
    server = {"forkserver": {"preload_modules": ["stpath_assets.defs.build"]}}
    return {"multiprocess": {"start_method": server, **config["multiprocess"]}}


executor: dg.ExecutorDefinition = dg.multi_or_in_process_executor.configured(
    _chosen,
    name="in_process_or_multiprocess",
    config_schema=dg.Field(
        dg.Selector({"in_process": _IN_PROCESS, "multiprocess": _PROCESSES}), default_value={"in_process": {}}
    ),
)


def process_of(process: psutil.Process) -> str:
    """Return a process as text: host, process id and creation time, because process ids are used again."""
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def find_process(said: str) -> psutil.Process | None:
    """Return the process that `process_of` told, or None if it is gone. Raises `ValueError` for one of another host."""
    host, _, rest = said.partition("/")
    pid, _, _ = rest.partition("/")
    if host != socket.gethostname():
        raise ValueError(said)
    try:
        process = psutil.Process(int(pid))
        return process if process_of(process) == said and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


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
