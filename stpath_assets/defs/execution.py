"""Where the steps of a run execute: in the run's own process, unless the launchpad says otherwise.

A killed run takes its work with it, and a model is loaded once for all of the run's slides.
"""

import multiprocessing
import os
import threading
from multiprocessing import connection
from typing import Any

import dagster as dg

BY_COMMAND = "stpath/process"
"""Tag of the runs that a command makes in its own process; its value tells the process."""

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


def end_with_run(run: dg.DagsterRun | None) -> None:
    """If this is the process of a step, end it as soon as the process of its run is gone.

    Otherwise a step goes on after its run was killed: it would take the GPU for work that nobody records.
    """
    chosen: Any = run.run_config.get("execution", {}) if run else {}
    parent = multiprocessing.parent_process()
    if parent is None or "multiprocess" not in chosen.get("config", {}):
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="end with the run", daemon=True).start()
