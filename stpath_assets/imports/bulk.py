"""Imports bulk expression: a row per patient and gene, or a matrix of genes by patients. It is stored as log1p."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stpath_assets.imports.reading import Frame, check_patients, read_frame
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import BULK_EXPRESSION

UNITS = ("tpm", "cpm", "counts", "log1p_tpm", "log2p1_tpm")
_MAX_LOG = 25.0
"""Log1p of a millionth, or log2, is below this: a larger value was not logged."""

_LONG = ("patient_id", "gene", "value")


def import_bulk(store: Store, path: Path, unit: str) -> list[str]:
    """Store bulk expression in `bulk_expression`, in place of that of its patients in the same unit. Returns notes.

    The file has the columns patient_id, gene and value; or gene and a column per patient. `unit` is one of `UNITS`. Raises
    `ImportFileError` for a gene twice, a negative value, a value that was not logged, or if no slide has any of the patients.
    """
    frame = read_frame(path)
    long = frame if "patient_id" in frame.columns else _long(frame)
    long.require(_LONG)
    long.refuse_twice(["patient_id", "gene"])
    logged = unit.startswith("log")
    values = np.array(long.numbers("value", 0, _MAX_LOG if logged else math.inf), np.float64)
    measured = unit.rpartition("_")[2]
    columns: dict[str, list[Any]] = {
        "patient_id": long.texts("patient_id"), "gene": long.texts("gene"), "unit": [measured] * long.n,
        "expression_log1p": list(_log1p(values, unit)), "source": [path.name] * long.n,
    }  # fmt: skip
    rows = pa.table([pa.array(columns[f.name], f.type) for f in BULK_EXPRESSION.schema], schema=BULK_EXPRESSION.schema)
    patients, notes = sorted(set(columns["patient_id"])), check_patients(store, long)
    store.create()

    def work(cursor: Cursor) -> None:
        where = "concat(unit, '') = ? and patient_id in (select unnest(?))"
        cursor.execute(f"delete from {NAME}.parts.{BULK_EXPRESSION.name} where {where}", [measured, patients])
        insert_rows(cursor, BULK_EXPRESSION, rows)

    store.lake.transact(work)
    return notes


def _log1p(values: "np.ndarray[Any, np.dtype[np.float64]]", unit: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    if unit == "log1p_tpm":
        return values
    return values * math.log(2) if unit == "log2p1_tpm" else np.log1p(values)


def _long(frame: Frame) -> Frame:
    """Return a matrix of genes by patients as a row per patient and gene. Errors then name the row of the gene."""
    frame.require(["gene"], frame.names)
    frame.refuse_twice(["gene"])
    genes, patients = frame.texts("gene"), [n for n in frame.names if n != "gene"]
    for patient in patients:
        frame.numbers(patient, 0)
    columns: dict[str, list[Any]] = {
        "patient_id": [p for p in patients for _ in genes], "gene": genes * len(patients),
        "value": [v for p in patients for v in frame.columns[p]],
    }  # fmt: skip
    return Frame(frame.path, columns, frame.first)
