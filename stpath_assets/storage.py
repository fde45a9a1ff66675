"""Writes and reads one slide's part of a table.

A part is one complete Parquet file, replaced by rename after fsync: a reader sees the old one or the new one,
never half of one. Each carries the fingerprint of what it was made from. What the tables hold is said in
`tables`; how they are queried together, in `catalog`.
"""

import errno
import json
import os
import re
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stpath_assets.errors import StorageError
from stpath_assets.fingerprint import Fingerprint
from stpath_assets.tables import TABLES, Table

SLIDE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")
_FACTS = b"stpath_facts"
_FINGERPRINT = b"stpath_fingerprint"
_SUMMARY = b"stpath_summary"
_ROW_GROUP = 64  # genes a row group in by-gene tables: a query for one gene reads little else


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success it is synced and renamed over `path`, on error removed.

    Raises `StorageError` where the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_leftovers(path)
        draft = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            yield draft
            with draft.open("rb+") as f:
                os.fsync(f.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as e:
        what = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else (e.strerror or str(e))
        raise StorageError(f"{path}: cannot be written, {what}; what stood there is unchanged") from e


def _remove_dead_leftovers(path: Path) -> None:
    """Removes drafts of `path` whose writer, a process of this host, is gone (killed in mid-write)."""
    for draft in path.parent.glob(f".{path.name}.{socket.gethostname()}.*.tmp"):
        pid = draft.name.split(".")[-3]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            draft.unlink(missing_ok=True)


@dataclass(frozen=True)
class ByGene:
    """One slide's part of a by-gene table, in memory.

    `keys` holds the key columns, each of length N; `values` is (N, G) with column g for `genes[g]`.
    """

    keys: dict[str, npt.NDArray]
    genes: list[str]
    values: npt.NDArray


@dataclass(frozen=True)
class Made:
    """What bringing a part up to date came to: its fingerprint, whether it had to be made, what to tell the user."""

    fingerprint: Fingerprint
    made: bool
    notes: tuple[str, ...] = ()


class Store:
    """The tables under one data root."""

    def __init__(self, home: Path) -> None:
        self.home = Path(home)

    def path(self, table: str, slide_id: str) -> Path:
        """The file of one slide's part; raises `StorageError` for a slide_id that is not one."""
        if not SLIDE_ID.fullmatch(slide_id):
            raise StorageError(
                f"{slide_id!r} is no slide_id: letters, digits, '_', '.', '-', at most 120, first a letter or digit, no '..'"
            )
        return self.home / "tables" / TABLES[table].name / f"{slide_id}.parquet"

    def slide_ids(self, table: str) -> list[str]:
        """The slides that have a part of the table, sorted."""
        return sorted(p.stem for p in (self.home / "tables" / table).glob("[!.]*.parquet"))

    def write(
        self,
        table: str,
        slide_id: str,
        rows: pa.Table,
        fingerprint: Fingerprint,
        summary: Mapping[str, Any] | None = None,
    ) -> Path:
        """Stores a slide's part of a table that is stored row by row; replaces the one before.

        `summary` holds JSON values that say how the rows came about; it is no part of what they were made from.
        """
        return self._write(TABLES[table], slide_id, [rows], fingerprint, summary)

    def write_by_gene(
        self,
        table: str,
        slide_id: str,
        keys: dict[str, npt.NDArray],
        blocks: Iterable[tuple[Sequence[str], npt.NDArray]],
        fingerprint: Fingerprint,
        **constants: str,
    ) -> Path:
        """Stores a slide's part of a by-gene table from blocks of (genes, values (N, genes)), one in memory at a time.

        Genes must come in ascending order over all blocks, each once. `constants` fills the remaining
        columns.
        """
        spec = TABLES[table]
        n = len(next(iter(keys.values())))

        def head() -> pa.Table:
            columns = {k: pa.array([v], spec.schema.field(k).type) for k, v in keys.items()}
            return _complete(spec, 1, slide_id=slide_id, **constants, **columns)

        def rows() -> Iterator[pa.Table]:
            yield head()
            last = ""
            for genes, values in blocks:
                if values.shape != (n, len(genes)):
                    raise ValueError(f"{table}: block of shape {values.shape} for {n} keys and {len(genes)} genes")
                for gene in genes:
                    if gene <= last:
                        raise ValueError(f"{table}: genes out of order: {gene!r} after {last!r}")
                    last = gene
                yield _gene_rows(spec, genes, values, slide_id=slide_id, **constants)

        return self._write(spec, slide_id, rows(), fingerprint)

    def _write(
        self,
        spec: Table,
        slide_id: str,
        tables: Iterable[pa.Table],
        fingerprint: Fingerprint,
        summary: Mapping[str, Any] | None = None,
    ) -> Path:
        path = self.path(spec.name, slide_id)
        metadata: dict[bytes, Any] = {_FACTS: fingerprint.to_json(), _FINGERPRINT: fingerprint.digest}
        if summary is not None:
            metadata[_SUMMARY] = json.dumps(summary, allow_nan=False)
        schema = spec.schema.with_metadata(metadata)
        floats = [_leaf(f) for f in spec.schema if pa.types.is_floating(_value_type(f.type))]
        plain = {
            *floats,
            *(_leaf(f) for f in spec.schema if spec.by_gene and f.name in (*spec.keys, spec.value)),
        }
        with atomic_file(path) as draft:
            with pq.ParquetWriter(
                draft,
                schema,
                compression="zstd",
                use_dictionary=[_leaf(f) for f in spec.schema if _leaf(f) not in plain],
                column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
                write_page_index=True,
            ) as writer:
                for rows in tables:
                    writer.write_table(rows.cast(schema), row_group_size=_ROW_GROUP if spec.by_gene else None)
        return path

    def read(self, table: str, slide_id: str, columns: list[str] | None = None) -> pa.Table:
        """A slide's part as stored (by-gene tables: see `read_by_gene`).

        Raises `StorageError` where there is none or it is damaged.
        """
        with self._opened(table, slide_id) as file:
            return pq.read_table(file, columns=columns, partitioning=None)

    def read_by_gene(self, table: str, slide_id: str, genes: Sequence[str] | None = None) -> ByGene:
        """A slide's part of a by-gene table, all genes or those of `genes` that it has, in stored order."""
        spec = TABLES[table]
        assert spec.value is not None
        wanted = None if genes is None else pc.field("gene").isin(pa.array(genes, pa.string()))
        with self._opened(table, slide_id) as file:
            head = pq.read_table(file, columns=[*spec.keys, "gene"], partitioning=None).slice(0, 1)
            rows = pq.read_table(file, columns=["gene", spec.value], filters=wanted, partitioning=None)
        keys = {k: np.asarray(head[k][0].values) for k in spec.keys}
        rows = rows.filter(pc.is_valid(rows["gene"]))
        flat = rows[spec.value].combine_chunks().flatten().to_numpy()
        n = len(next(iter(keys.values())))
        return ByGene(keys, rows["gene"].to_pylist(), flat.reshape(rows.num_rows, n).T)

    def fingerprint(self, table: str, slide_id: str) -> Fingerprint | None:
        """What a slide's part was made from, or None where there is no part."""
        path = self.path(table, slide_id)
        try:
            metadata = pq.read_schema(path).metadata or {}
            return Fingerprint(json.loads(metadata[_FACTS]))
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, KeyError, ValueError) as e:
            raise _damaged(path, e) from e

    def summary(self, table: str, slide_id: str) -> dict[str, Any]:
        """The summary that a slide's part was stored with, empty if with none."""
        with self._opened(table, slide_id) as file:
            metadata = pq.read_schema(file).metadata or {}
            return dict(json.loads(metadata.get(_SUMMARY, b"{}")))

    def require(self, table: str, slide_id: str) -> Fingerprint:
        """As `fingerprint`, but raises `StorageError` where there is no part."""
        stored = self.fingerprint(table, slide_id)
        if stored is None:
            raise _absent(table, slide_id)
        return stored

    def is_current(self, table: str, slide_id: str, fingerprint: Fingerprint) -> bool:
        """Whether the stored part is what would be made now. A damaged part is not, and is made again."""
        try:
            stored = self.fingerprint(table, slide_id)
        except StorageError:
            return False
        return stored is not None and stored.digest == fingerprint.digest

    def row_count(self, table: str, slide_id: str) -> int:
        """The number of rows that the part has in its view."""
        spec = TABLES[table]
        with self._opened(table, slide_id) as file:
            rows = int(pq.read_metadata(file).num_rows)
            if not spec.by_gene:
                return rows
            head = pq.read_table(file, columns=[spec.keys[0]], partitioning=None)
            return len(head[spec.keys[0]][0].values) * (rows - 1)

    @contextmanager
    def _opened(self, table: str, slide_id: str) -> Iterator[pa.NativeFile]:
        """A part, opened once: by its path, pyarrow opens it again and again, and another may have been renamed over it."""
        path = self.path(table, slide_id)
        try:
            with pa.OSFile(str(path)) as file:
                yield file
        except FileNotFoundError as e:
            raise _absent(table, slide_id) from e
        except (pa.ArrowException, OSError) as e:
            raise _damaged(path, e) from e


def _value_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_) else type_


def _leaf(field: pa.Field) -> str:
    """The Parquet leaf column of a field."""
    return field.name if field.type == _value_type(field.type) else f"{field.name}.list.element"


def _complete(spec: Table, n: int, **columns: pa.Array | str) -> pa.Table:
    """A table of n rows with the schema of `spec`: strings are repeated, columns not given are NULL."""
    arrays = []
    for field in spec.schema:
        value = columns.get(field.name)
        if value is None:
            arrays.append(pa.nulls(n, field.type))
        else:
            arrays.append(pa.repeat(value, n) if isinstance(value, str) else value)
    return pa.table(arrays, schema=spec.schema)


def _gene_rows(spec: Table, genes: Sequence[str], values: npt.NDArray, **constants: str) -> pa.Table:
    """The rows of a block of genes: `values` (N, G) becomes G lists of N."""
    assert spec.value is not None
    n, g = values.shape
    type_ = spec.schema.field(spec.value).type
    flat = pa.array(np.ascontiguousarray(values.T).reshape(-1), type_.value_type)
    lists = pa.ListArray.from_arrays(pa.array(np.arange(g + 1, dtype=np.int32) * n), flat)
    return _complete(spec, g, gene=pa.array(genes, pa.string()), **{spec.value: lists}, **constants)


def _absent(table: str, slide_id: str) -> StorageError:
    return StorageError(f"{slide_id}: has no {table} yet; run: stpath-assets run {slide_id}")


def _damaged(path: Path, cause: Exception) -> StorageError:
    return StorageError(f"{path}: is damaged ({type(cause).__name__}); delete it and run the slide again")
