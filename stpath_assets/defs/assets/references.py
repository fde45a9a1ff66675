"""The asset `reference_models`: predictors fitted to all their slides with measured spots."""

import dagster as dg

from stpath_assets.defs.assets.spec import COHORT_GROUP, OWNERS, column_schema, one_line_failures
from stpath_assets.evaluation.fitting import CODE_VERSION, refresh_references
from stpath_assets.prediction.references import read_references
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import GIGAPATH_FEATURES, REFERENCE_MODELS, SPOT_EXPRESSION, SPOT_REGISTRATION

_MOST = 20


def materialization_of(store: Store, fitted: dict[str, bool]) -> dg.AssetMaterialization:
    """Return the event of the stored predictors; `fitted` says which were fitted now."""
    stored = [r for r in read_references(store) if not r.left_out]
    copies = [r for r in read_references(store) if r.left_out]
    columns = [
        dg.TableColumn("model"),
        dg.TableColumn("slides", "int"),
        dg.TableColumn("patients", "int"),
        dg.TableColumn("spots", "int"),
        dg.TableColumn("genes", "int"),
        dg.TableColumn("copies", "int"),
        dg.TableColumn("fitted_now", "bool"),
    ]
    records = [
        dg.TableRecord(
            {
                "model": r.model,
                "slides": len(r.slides),
                "patients": len(set(r.patients) - {""}),
                "spots": r.n_spots,
                "genes": r.n_genes,
                "copies": sum(c.model == r.model for c in copies),
                "fitted_now": fitted.get(r.model, False),
            }
        )
        for r in stored[:_MOST]
    ]
    digest = Fingerprint({r.model: r.digest for r in stored}).digest
    return dg.AssetMaterialization(
        REFERENCE_MODELS.name,
        metadata={
            "models": len(stored),
            "fitted_now": sum(fitted.values()),
            "table": dg.MetadataValue.table(records, dg.TableSchema(columns)),
        },
        tags={"dagster/data_version": digest, "dagster/data_version_is_user_provided": "true"},
    )


@dg.asset(
    name=REFERENCE_MODELS.name,
    deps=[GIGAPATH_FEATURES.name, SPOT_EXPRESSION.name, SPOT_REGISTRATION.name],
    group_name=COHORT_GROUP,
    description=f"One row is {REFERENCE_MODELS.row}. What `stpath-assets fit` was asked for is fitted again where its slides' "
    "features or spots have changed.",
    owners=OWNERS,
    kinds={"scikitlearn"},
    code_version=CODE_VERSION,
    metadata={"dagster/column_schema": column_schema(REFERENCE_MODELS), "dagster/table_name": REFERENCE_MODELS.name},
)
def reference_models(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Fit predictors whose slides have changed."""
    store = Store.of(settings)
    with one_line_failures():
        fitted = refresh_references(store)
    event = materialization_of(store, fitted)
    return dg.MaterializeResult(
        metadata=event.metadata, data_version=dg.DataVersion(str((event.tags or {})["dagster/data_version"]))
    )
