"""What all per-slide assets share: partitions, documentation, failures, and the form of their metadata.

Metadata is small: numbers under stable names, which the UI plots, and pictures of up to 50 KB.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa

from stpath_assets.defs import partitions
from stpath_assets.errors import StpathError
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.stages import STAGES, working
from stpath_assets.storage import Outcome, Store
from stpath_assets.tables import SLIDES, Table

OWNERS = ["team:pathology"]

GPU_POOL = "gpu"
GPU_TAGS: dict[str, Any] = {
    "dagster-ray/config": {"num_gpus": 1},
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}


def per_slide(
    table: Table,
    *,
    group: str,
    description: str,
    gpu: bool = False,
    slides_a_run: int = 1,
    checks: Sequence[dg.AssetCheckSpec] = (),
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return the decorator of an asset that stores one part of `table` per slide. For `slides_a_run` see `batches`.

    Its dependencies and code version are those of its stage.
    """
    stage = STAGES[table.name]
    with warnings.catch_warnings():
        # Dagster warns each time the code location is loaded that backfill_policy is in beta.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.asset(
            name=table.name,
            deps=list(stage.parents),
            partitions_def=partitions.SLIDES,
            group_name=group,
            description=f"One row is {table.row}. {description}",
            owners=OWNERS,
            kinds={"parquet", "torch"} if gpu else {"parquet", "python"},
            code_version=stage.code_version,
            metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
            check_specs=list(checks),
            pool=GPU_POOL if gpu else None,
            op_tags=GPU_TAGS if gpu else None,
            backfill_policy=dg.BackfillPolicy.multi_run(slides_a_run),
            # A run of many slides records each slide by itself; one event for all would give them the same version.
            output_required=slides_a_run == 1,
        )


def column_schema(table: Table) -> dg.TableSchema:
    """Return a table's columns as in its view."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                f.name,
                _type_name(f.type),
                description=f.metadata[b"description"].decode(),
                constraints=dg.TableColumnConstraints(
                    nullable=f.nullable and f.name not in (*table.keys, table.value, "gene")
                ),
            )
            for f in table.view_columns()
        ]
    )


@contextmanager
def one_line_failures() -> Iterator[None]:
    """Turn errors that a user can act on into failures that are not retried. Any other exception is a bug and keeps its
    traceback.
    """
    try:
        yield
    except StpathError as e:
        raise dg.Failure(str(e), allow_retries=False) from e


@contextmanager
def at_work(context: dg.AssetExecutionContext, settings: Settings, table: Table, slide_id: str) -> Iterator[Registered]:
    """Lock a slide while one of its stages is brought up to date (`stages.working`), and store what the run was asked for.

    Raises `SlideError` if the slide is not registered or not live.
    """
    store = Store.of(settings)
    with working(store, table.name, slide_id, context.log.info) as row:
        yield Registry(store).keep_asked(slide_id, settings.asked) if settings.asked else row


def result(
    context: dg.AssetExecutionContext,
    settings: Settings,
    table: Table,
    made: Outcome,
    metadata: dict[str, Any] | None = None,
    checks: Sequence[dg.AssetCheckResult] = (),
) -> dg.MaterializeResult:
    """Return an asset's result: the fingerprint as data version, the row count, notes, and extra metadata."""
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.fingerprint.digest),
        metadata=metadata_of(context, settings, table, context.partition_key, made, metadata),
        check_results=list(checks),
    )


def metadata_of(
    context: dg.AssetExecutionContext,
    settings: Settings,
    table: Table,
    slide_id: str,
    made: Outcome,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return every asset's metadata of a slide's part: rows, path, size, notes, and extra metadata. Logs the notes."""
    store = Store.of(settings)
    for note in made.notes:
        context.log.warning(note)
    part = store.part(table.name, slide_id)
    where = (
        {}
        if part is None or part.file is None
        else {"dagster/uri": store.objects.where(part.file), "size_bytes": part.size_bytes}
    )
    return {
        "dagster/partition_row_count": 1 if table is SLIDES else store.row_count(table.name, slide_id),
        **where,
        "made": made.recomputed,
        **({"notes": dg.MetadataValue.md("\n".join(f"- {n}" for n in made.notes))} if made.notes else {}),
        **(metadata or {}),
    }


def picture(data_uri: str, alt: str) -> dg.MarkdownMetadataValue:
    """Return a small picture as metadata."""
    return dg.MetadataValue.md(f"![{alt}]({data_uri})")


def _type_name(type_: pa.DataType) -> str:
    return str(type_).replace("fixed_size_list<element: float>", "float")
