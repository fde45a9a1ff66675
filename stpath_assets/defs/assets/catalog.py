"""The `catalog` asset: DuckDB views over the tables of all slides."""

import dagster as dg

from stpath_assets.catalog import build
from stpath_assets.defs.assets.spec import OWNERS, one_line_failures
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import TABLES


@dg.asset(
    deps=[t.name for t in TABLES.values() if t.asset is None],
    group_name="catalog",
    description="`catalog.duckdb`: a view a table, over the Parquet files of all live slides. Rebuilt beside and renamed.",
    owners=OWNERS,
    kinds={"duckdb"},
    code_version="1",
    # Plain eager() would wait for ever while one slide of many is missing.
    automation_condition=dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing()),
)
def catalog(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Rebuilds the views."""
    store = Store(settings.home)
    with one_line_failures():
        path = build(store)
    parts = {f"{name}_parts": len(store.slide_ids(name)) for name in TABLES}
    return dg.MaterializeResult(metadata={"dagster/uri": str(path), **parts})
