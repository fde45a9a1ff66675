"""What all per-slide assets share: partitions, documentation, checks, and how a backfill cuts them into runs."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa

from stpath_assets.defs import partitions
from stpath_assets.defs.assets.glance import about
from stpath_assets.errors import SettingsError, StpathError
from stpath_assets.settings import Settings, load_settings
from stpath_assets.stages import STAGES
from stpath_assets.tables import Table

CAN_BE_MADE = "can_be_made"
"""The check of every per-slide asset. Where it failed, it holds the reason."""

SLIDE_GROUP, COHORT_GROUP = "slide", "cohort"
OWNERS = ["team:pathology"]

GPU_POOL = "gpu"
GPU_TAGS: dict[str, Any] = {
    "dagster-ray/config": {"num_gpus": 1},
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}


def per_slide(
    table: Table, *, description: str, gpu: bool = False, checks: dict[str, str] | None = None, also: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return the decorator of an asset that stores one part of `table` per slide, in runs of up to `slides_per_run` slides.

    Its dependencies and code version are those of its stage; `also` names further assets, of all slides. `checks` has the
    description of each of its checks by name; every asset also has the check `can_be_made`.
    """
    stage = STAGES[table.name]
    described = {
        CAN_BE_MADE: "The stage works for the slide. Where it does not, the check holds the reason.",
        **(checks or {}),
    }
    with warnings.catch_warnings():
        # Dagster warns each time the code location is loaded that these features are new.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.asset(
            name=table.name,
            deps=[*stage.parents, *(["model"] if gpu else []), *also],
            partitions_def=partitions.SLIDES,
            group_name=SLIDE_GROUP,
            description=about(table, description),
            owners=OWNERS,
            kinds={"parquet", "torch"} if gpu else {"parquet", "python"},
            code_version=stage.code_version,
            metadata={"dagster/column_schema": column_schema(table), "dagster/table_name": table.name},
            check_specs=[
                dg.AssetCheckSpec(name, asset=table.name, description=text, partitions_def=partitions.SLIDES)
                for name, text in described.items()
            ],
            pool=GPU_POOL if gpu else None,
            op_tags=GPU_TAGS if gpu else None,
            # One policy for all, so that a backfill takes a group of slides through all stages in one run.
            backfill_policy=dg.BackfillPolicy.multi_run(_slides_per_run()),
        )


def _slides_per_run() -> int:
    try:
        return load_settings().slides_per_run
    except SettingsError:
        # The code location loads all the same; each run then fails with the wrong setting.
        return int(Settings.model_fields["slides_per_run"].default)


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


def _type_name(type_: pa.DataType) -> str:
    return str(type_).replace("fixed_size_list<element: float>", "float")
