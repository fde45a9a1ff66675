"""Where the steps of a run execute: in the run's own process, unless the launchpad says otherwise.

A killed run takes its work with it, and a model is loaded once for all of the run's slides.
"""

from typing import Any

import dagster as dg

BY_COMMAND = "stpath/command"
"""Tag of the runs that a command makes in its own process."""

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
