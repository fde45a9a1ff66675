"""The code location of `stpath_assets` with dagster-ray's executor: every step is a Ray job that takes what its tags ask for."""

import os

import dagster as dg
from dagster_ray import ray_executor

from stpath_assets import definitions as local

_INHERITED = [
    "STPATH_HOME",
    "STPATH_LAKE",
    "STPATH_TABLES",
    "STPATH_ENCODER",
    "STPATH_ENCODER_URL",
    "STPATH_ENCODER_TOKEN_FILE",  # a file: variables of a job are shown by Ray
    "DAGSTER_HOME",
]

_on_ray = ray_executor.configured(
    {
        "ray": {
            "address": os.environ.get("RAY_JOBS_ADDRESS", "http://127.0.0.1:8265"),
            "env_vars": [name for name in _INHERITED if name in os.environ],
        }
    }
)

defs = dg.Definitions(
    assets=local.defs.assets,
    jobs=local.defs.jobs,
    schedules=local.defs.schedules,
    resources=local.defs.resources,
    executor=_on_ray,
)
