"""GPU stages in batches: one run serves many slides, so that a model is loaded once for all of them.

The good slides are kept if others fail. Each good slide is recorded with its own fingerprint before the step fails with the
names of the bad ones. Backfills make such runs (`BackfillPolicy.multi_run`). A run of one slide is an ordinary run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from stpath_assets.errors import StpathError, describe

FEATURES_A_RUN = 16
PREDICTIONS_A_RUN = 32
"""Slides per run. The numbers differ on purpose: stages with equal policies share a run, in which good slides would not be
predicted if another slide's features failed.
"""

# Dagster's own tags for versions. Dagster writes them itself only in runs of one slide.
_CODE_VERSION = "dagster/code_version"
_DATA_VERSION = "dagster/data_version"
_GIVEN = "dagster/data_version_is_user_provided"
_INPUT_VERSION = "dagster/input_data_version/"
_INPUT_EVENT = "dagster/input_event_pointer/"

Results = Iterator[dg.MaterializeResult | dg.AssetCheckResult]


@dataclass(frozen=True)
class Report:
    """The report of one slide: its data version, metadata, and the results of its checks, by name."""

    data_version: str
    metadata: dict[str, Any]
    checks: dict[str, bool] = field(default_factory=dict)


def each_slide(context: dg.AssetExecutionContext, make: Callable[[str], Report], checks: Sequence[str] = ()) -> Results:
    """Make the asset for each slide of the run. After all were tried, raises `Failure` with the slides that failed."""
    slide_ids = list(context.partition_keys)
    if len(slide_ids) == 1:
        yield _alone(make, slide_ids[0])
        return
    bad: dict[str, str] = {}
    missed: dict[str, list[str]] = {check: [] for check in checks}
    for slide_id in slide_ids:
        try:
            report = make(slide_id)
        except StpathError as e:
            bad[slide_id] = str(e) if slide_id in str(e) else f"{slide_id}: {e}"
        except Exception as e:
            # A bug with one slide must not cost the other slides their features.
            context.log.exception(f"{slide_id}: {e}")
            bad[slide_id] = f"{slide_id}: {describe(e, 1000)} (a bug; the traceback is in the log)"
        else:
            context.log_event(_materialization(context, slide_id, report))
            for check in checks:
                missed[check] += [] if report.checks[check] else [slide_id]
    for check, slides in missed.items():
        yield dg.AssetCheckResult(
            passed=not slides, check_name=check, severity=dg.AssetCheckSeverity.ERROR, metadata={"slides": slides}
        )
    if bad:
        raise dg.Failure(
            f"{len(bad)} of {len(slide_ids)} slides failed, the others are kept: {' | '.join(bad.values())}",
            metadata={"failed": list(bad)},
            allow_retries=False,
        )


def _alone(make: Callable[[str], Report], slide_id: str) -> dg.MaterializeResult:
    try:
        report = make(slide_id)
    except StpathError as e:
        raise dg.Failure(str(e), allow_retries=False) from e
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.data_version),
        metadata=report.metadata,
        check_results=[
            dg.AssetCheckResult(passed=passed, check_name=name, severity=dg.AssetCheckSeverity.ERROR)
            for name, passed in report.checks.items()
        ],
    )


def _materialization(context: dg.AssetExecutionContext, slide_id: str, report: Report) -> dg.AssetMaterialization:
    """Return the event of one slide of many, with the version tags that Dagster writes for a run of one slide."""
    key = context.asset_key
    tags = {
        _CODE_VERSION: context.assets_def.code_versions_by_key[key] or "",
        _DATA_VERSION: report.data_version,
        _GIVEN: "true",
    }
    for dep in context.assets_def.asset_deps[key]:
        tags |= _input_tags(context.instance, dep, slide_id)
    return dg.AssetMaterialization(key, partition=slide_id, metadata=report.metadata, tags=tags)


def _input_tags(instance: dg.DagsterInstance, dep: dg.AssetKey, slide_id: str) -> dict[str, str]:
    of_slide = dg.AssetRecordsFilter(dep, asset_partitions=[slide_id])
    records = instance.fetch_materializations(of_slide, limit=1).records
    if not records or records[0].asset_materialization is None:
        return {}
    name = dep.to_user_string()
    version = (records[0].asset_materialization.tags or {}).get(_DATA_VERSION)
    return {
        f"{_INPUT_EVENT}{name}": str(records[0].storage_id),
        **({f"{_INPUT_VERSION}{name}": version} if version else {}),
    }
