"""Imports gene sets from a GMT file: a set a line, with its name, a description and its genes, separated by tabs."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from stpath_assets.errors import ImportFileError, one_line
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import GENE_SETS

_GENE = re.compile(r"[^\s,;]{1,60}")
_MAX_BYTES = 256 << 20


def import_gene_sets(store: Store, path: Path) -> list[str]:
    """Store the sets of a GMT file in `gene_sets`, in place of sets of the same names. Returns their names.

    Raises `ImportFileError` with the line of what is wrong; nothing is stored then.
    """
    rows = pa.Table.from_pylist(_read(path), GENE_SETS.schema)
    names = rows["set_name"].to_pylist()
    store.create()

    def work(cursor: Cursor) -> None:
        cursor.execute(f"delete from {NAME}.parts.{GENE_SETS.name} where set_name in (select unnest(?))", [names])
        insert_rows(cursor, GENE_SETS, rows)

    store.lake.transact(work)
    return [str(n) for n in names]


def _read(path: Path) -> list[dict[str, object]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ImportFileError(f"{path}: is larger than {_MAX_BYTES >> 20} MB, so it is no GMT file")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ImportFileError(f"{path}: is not text in UTF-8, so it is no GMT file") from e
    except OSError as e:
        raise ImportFileError(f"{path}: cannot be read ({e.strerror}); check the path") from e
    now, found, seen = datetime.now(UTC), list[dict[str, object]](), dict[str, int]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = line.rstrip().split("\t")
        if len(rest) < 2 or not name.strip():
            raise ImportFileError(
                f"{path}: row {number}: a set is its name, a description and its genes, separated by tabs; this has "
                f"{len(rest) + 1} value{'s' * bool(rest)}"
            )
        name, genes = name.strip(), dict[str, int]()
        for column, gene in enumerate(rest[1:], 3):
            if not _GENE.fullmatch(gene):
                raise ImportFileError(
                    f"{path}: row {number}, column {column}: {one_line(gene)[:60]!r} is no gene symbol"
                )
            if genes.setdefault(gene, column) != column:
                raise ImportFileError(
                    f"{path}: row {number}, column {column}: {gene} stands in column {genes[gene]} as well"
                )
        if seen.setdefault(name, number) != number:
            raise ImportFileError(
                f"{path}: row {number}, column 1: {one_line(name)} stands in row {seen[name]} as well"
            )
        found.append({
            "set_name": name, "description": rest[0].strip() or None, "genes": list(genes), "source": path.name,
            "imported_at": now,
        })  # fmt: skip
    if not found:
        raise ImportFileError(f"{path}: has no gene set")
    return found
