"""Imports what other tools found in tiles: tissue domains and cell types.

The contract is a row per tile, named by slide_id and tile_id. A file of domains has the columns slide_id, tile_id, domain, and
probability if the tool gives one. A file of cell types has slide_id, tile_id, cell_type and value: a row per tile and cell type.
SQL on `tile_grids` gives a tool the tiles. Rows belong to the grid that is current when they are imported.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from stpath_assets.errors import ImportFileError, one_line
from stpath_assets.imports.reading import Frame, read_frame, slides_of
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import TILE_CELL_TYPES, TILE_DOMAIN, TILE_GRIDS, Table

UNITS = ("fraction", "cells")
_WHOLE = 1.001
"""Fractions of a tile's cells add up to at most this: 1, and what rounding adds."""


def import_domains(store: Store, path: Path, method: str) -> int:
    """Store the domains of a file, in place of those of its slides by the same method. Returns the number of rows.

    Raises `ImportFileError` for a tile that is not of its slide's grid, a tile twice, or a probability beyond 0 to 1.
    """
    frame = read_frame(path)
    frame.require(["slide_id", "tile_id", "domain"], ["probability"])
    frame.refuse_twice(["slide_id", "tile_id"])
    more: dict[str, list[Any]] = {"domain": frame.texts("domain")}
    if "probability" in frame.columns:
        more["probability"] = frame.numbers("probability", 0, 1, nullable=True)
    return _import(store, TILE_DOMAIN, frame, method, more)


def import_cell_types(store: Store, path: Path, method: str, unit: str) -> int:
    """Store the cell types of a file, as `import_domains`. `unit` is `fraction` or `cells`; fractions of a tile add up to at most
    1.
    """
    frame = read_frame(path)
    frame.require(["slide_id", "tile_id", "cell_type", "value"])
    frame.refuse_twice(["slide_id", "tile_id", "cell_type"])
    values = frame.numbers("value", 0, 1 if unit == "fraction" else float("inf"))
    if unit == "fraction":
        sums: dict[tuple[str, str], float] = defaultdict(float)
        for i, (slide, tile, value) in enumerate(
            zip(frame.columns["slide_id"], frame.columns["tile_id"], values, strict=True)
        ):
            sums[slide, tile] += value or 0.0
            if sums[slide, tile] > _WHOLE:
                frame.fail(
                    i,
                    "value",
                    f"the fractions of {one_line(f'{slide} {tile}')} add up to more than 1; use --unit cells",
                )
    more: dict[str, list[Any]] = {"cell_type": frame.texts("cell_type"), "value": values, "unit": [unit] * frame.n}
    return _import(store, TILE_CELL_TYPES, frame, method, more)


def _import(store: Store, table: Table, frame: Frame, method: str, more: dict[str, list[Any]]) -> int:
    if not method.strip():
        raise ImportFileError(f"{frame.path}: the method has no name; give tool and version: --method 'HoverNet 1.0'")
    slides = frame.texts("slide_id")
    frame.refuse_unknown("slide_id", slides_of(store), "registered slide", "stpath-assets status lists them")
    grids = _require_tiles(store, frame, slides)
    columns = {
        "slide_id": slides, "tile_id": frame.texts("tile_id"), "method": [method.strip()] * frame.n,
        "grid": [grids[s] for s in slides], **more,
    }  # fmt: skip
    rows = pa.table(
        [pa.array(columns.get(f.name, [None] * frame.n), f.type) for f in table.schema], schema=table.schema
    )

    def work(cursor: Cursor) -> None:
        _require_same_grids(cursor, grids)
        cursor.execute(
            f"delete from {NAME}.parts.{table.name} where concat(method, '') = ? and slide_id in (select unnest(?))",
            [method.strip(), list(grids)],
        )
        insert_rows(cursor, table, rows)

    store.lake.transact(work)
    return frame.n


def _require_tiles(store: Store, frame: Frame, slides: list[str]) -> dict[str, str]:
    """Return the digest of each slide's grid. Raises `ImportFileError` for a tile that is not in it."""
    grids, tiles = dict[str, str](), dict[str, set[str]]()
    for i, (slide, tile) in enumerate(zip(slides, frame.texts("tile_id"), strict=True)):
        if slide not in grids:
            part = store.part(TILE_GRIDS.name, slide)
            if part is None:
                frame.fail(i, "slide_id", f"{slide} has no tiles yet; run: stpath-assets run {slide}")
            grids[slide] = part.digest
            tiles[slide] = set(store.read(TILE_GRIDS.name, slide, ["tile_id"])["tile_id"].to_pylist())
        if tile not in tiles[slide]:
            frame.fail(
                i, "tile_id", f"{one_line(tile)} is no tile of {slide}; select tile_id from tile_grids lists them"
            )
    return grids


def _require_same_grids(cursor: Cursor, grids: dict[str, str]) -> None:
    query = f"select slide_id, digest from {NAME}.parts.lineage where table_name = '{TILE_GRIDS.name}'"
    now = dict(cursor.execute(query).fetchall())
    changed = [s for s, digest in grids.items() if now.get(s) != digest]
    if changed:
        raise ImportFileError(f"{changed[0]}: got other tiles during the import; nothing was stored, import again")
