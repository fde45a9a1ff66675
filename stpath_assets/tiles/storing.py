"""Stores a slide's tiles with their picture and notes, and checks that later tables still belong to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from stpath_assets.errors import FeatureError
from stpath_assets.slides import Registered
from stpath_assets.storage import Outcome, Store, pictures
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles.grid import union_share
from stpath_assets.tiles.layouts import GivenTiles
from stpath_assets.tiles.quality import REASONS, share_lost
from stpath_assets.tiles.regions import Regions, read_regions
from stpath_assets.tiles.survey import Survey, TileParameters, notes_of, survey_slide
from stpath_assets.tiles.tiling import grid_of


def store_tiles(store: Store, row: Registered, parameters: TileParameters) -> Outcome:
    """Bring a registered slide's `tile_grids` and its picture figures/<slide_id>/tiles.png up to date.

    The layout must be `GivenTiles` if the slide has a file of features, and only then. Raises `TissueError` if no tile is left;
    the picture is drawn first, because it shows why.
    """
    if isinstance(parameters.layout, GivenTiles) != (row.features_uri is not None):
        raise ValueError(f"{row.slide_id}: GivenTiles are for slides with a features_uri, and only for them")
    regions = None if row.regions_uri is None else read_regions(row.regions_uri)
    fingerprint = parameters.extend(row.fingerprint, None if regions is None else regions.sha256)
    is_current = store.is_current(TILE_GRIDS.name, row.slide_id, fingerprint)
    if not (is_current and pictures.is_current(overlay_path(store, row.slide_id), fingerprint.digest)):
        survey = _survey(row, parameters, regions)
        pictures.save_image(survey.overlay(), overlay_path(store, row.slide_id), fingerprint.digest)
        survey.require_tiles()
        if not is_current:
            _store(store, survey, fingerprint)
    return Outcome(fingerprint, not is_current, tuple(_notes(store, row, parameters)))


def _survey(row: Registered, parameters: TileParameters, regions: Regions | None) -> Survey:
    with row.open() as slide:
        return survey_slide(slide, row.slide_id, parameters, regions)


def _store(store: Store, survey: Survey, fingerprint: Fingerprint) -> None:
    store.write(TILE_GRIDS.name, survey.slide_id, survey.table, fingerprint, survey.summary())


def _notes(store: Store, row: Registered, parameters: TileParameters) -> Iterator[str]:
    if isinstance(parameters.layout, GivenTiles):
        yield from parameters.layout.notes
    summary = store.summary(TILE_GRIDS.name, row.slide_id)
    yield from notes_of(row.slide_id, max(row.mpp_xy), parameters.mpp, summary)


def overlay_path(store: Store, slide_id: str) -> Path:
    """Return the path of the picture of a slide's tiles."""
    return store.home / "figures" / slide_id / "tiles.png"


def require_current_grid(store: Store, slide_id: str, table: str, same_tiles: bool = True) -> Fingerprint:
    """Return the fingerprint of a slide's stored `table`, which was made from the slide's stored tiles.

    `same_tiles` says whether its tile_ids are those of the tiles, for callers that have read both. Raises `FeatureError` if the
    tiles were made again since, `StorageError` if the slide has no such part.
    """
    stored = store.require(table, slide_id)
    if not (same_tiles and stored.extends(store.require(TILE_GRIDS.name, slide_id))):
        raise FeatureError(
            f"{slide_id}: its {table} belongs to an earlier grid of tiles; run: stpath-assets run {slide_id}"
        )
    return stored


def tile_numbers(store: Store, row: Registered) -> dict[str, Any]:
    """Summarize a slide's stored tiles: counts, shares from 0 to 1 under the names of `tile_grids`, and medians."""
    table, summary = store.read(TILE_GRIDS.name, row.slide_id), store.summary(TILE_GRIDS.name, row.slide_id)
    dropped = {reason: len(summary["dropped"].get(reason, [])) for reason in REASONS}
    grid = grid_of(table)
    medians = {name: pc.quantile(table[name], 0.5)[0].as_py() for name in ("tissue_fraction", "saturation", "focus")}
    return {
        "tiles": table.num_rows,
        "side_px": grid.side_px,
        "enlargement": max(row.mpp_xy) / table["mpp"][0].as_py(),
        "covered": union_share(grid, row.width_px, row.height_px),
        "tissue_share": summary["tissue_share"],
        "pen_share": summary["pen_share"],
        "lost": share_lost(summary["candidates"], dropped),
        **{f"dropped_{reason}": n for reason, n in dropped.items()},
        **{f"median_{name}": value for name, value in medians.items() if value is not None},
    }
