"""The `catalog` asset: what SQL can query across all slides, and how much of it is up to date."""

from collections import Counter

import dagster as dg

from stpath_assets.catalog.views import bring_up
from stpath_assets.defs.assets.glance import LANDING
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.spec import COHORT_GROUP, OWNERS, one_line_failures
from stpath_assets.evaluation.overviews import draw_cohort
from stpath_assets.settings import Settings
from stpath_assets.stages import STAGES, Plan, states_of
from stpath_assets.storage import Store, pictures
from stpath_assets.viewer import link_to

_C = dg.AutomationCondition
_CHANGED: dg.AutomationCondition = _C.any_deps_match(_C.data_version_changed() | _C.newly_missing())
_SELF: dg.AutomationCondition = _C.code_version_changed() | _C.newly_missing()
AGAIN = (_CHANGED | _SELF).since_last_handled() & ~_C.any_deps_in_progress() & ~_C.in_progress()
"""When to count again: if a slide's data version has changed. `eager()` would go by events, of which each run of a slide writes
some also where nothing was made, and would wait for ever while one of many slides is missing.
"""


@dg.asset(
    deps=list(STAGES),
    group_name=COHORT_GROUP,
    description=LANDING,
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="2",
    automation_condition=AGAIN,
)
def catalog(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Bring the lake's computed views up to date, and count the rows of the catalog."""
    store = Store.of(settings)
    with one_line_failures():
        store.create()
        bring_up(store)
        states = [state.kind for _, stages in states_of(store, Plan(settings)) for state in stages.values()]
    parts = Counter(p.table for p in store.parts())
    counts = {f"{name}_parts": parts[name] for name in STAGES if name in parts}
    not_current = sum(kind not in ("current", "nothing") for kind in states)
    drawn = {
        f"cohort_{model}": picture(pictures.small_jpeg_of(path, 620), model)
        for model, path in draw_cohort(store).items()
    }
    link = {"viewer": dg.MetadataValue.url(link_to(settings))}
    return dg.MaterializeResult(
        metadata={**link, "lake": store.place.name, "not_current": not_current, **counts, **drawn}
    )
