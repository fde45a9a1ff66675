"""The Dagster code location: what `workspace.yaml` and `dg` load."""

import dagster as dg

from stpath_assets.defs import jobs, resources
from stpath_assets.defs.assets import catalog, evaluation, features, prediction, slides, tiles

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([slides, tiles, features, prediction, evaluation, catalog]),
    jobs=[jobs.main, jobs.count_catalog, jobs.maintain],
    schedules=[jobs.maintain_nightly],
    resources={"settings": resources.settings},
    executor=dg.multiprocess_executor.configured({"max_concurrent": 2}),
)
