"""Assembles the Dagster code location."""

import warnings
from functools import lru_cache
from typing import Any

import dagster as dg

from stpath_assets.defs import checks, execution, jobs, resources, sensors, webhook
from stpath_assets.defs.assets import catalog, evaluation, features, model, prediction, references, slides, tiles


def build_defs(**overrides: Any) -> dg.Definitions:
    """Return the code location. `overrides` are arguments of `dagster.Definitions` that replace ours."""
    parts: dict[str, Any] = {
        "assets": [
            *dg.load_assets_from_modules([slides, tiles, features, references, prediction, evaluation, catalog]),
            model.model,
        ],
        "asset_checks": [checks.no_slide_failed, checks.inbox_is_fresh],
        "jobs": [
            jobs.process_slide,
            jobs.register_scans,
            jobs.rescan,
            jobs.retire_slides,
            jobs.count_catalog,
            jobs.fit_references,
            jobs.check_cohort,
            jobs.maintain,
        ],
        "sensors": [sensors.new_scans, sensors.model_changed, sensors.catalog_changed, webhook.tell_failures],
        "schedules": [jobs.rescan_nightly, jobs.maintain_nightly, jobs.check_daily],
        "resources": {"settings": resources.SettingsResource()},
        "executor": execution.executor,
    }
    defs = dg.Definitions(**parts | overrides)
    with warnings.catch_warnings():
        # Dagster warns of a new parameter that it passes itself where it binds resources to sensors.
        warnings.simplefilter("ignore", dg.BetaWarning)
        defs.get_repository_def()
    return defs


@lru_cache(maxsize=1)
def code_location() -> dg.Definitions:
    """Return the code location as it is served and run. It is assembled once per process."""
    return build_defs()
