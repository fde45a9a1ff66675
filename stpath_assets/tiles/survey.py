"""Surveys a scan: finds the tissue, places tiles, measures them, and decides which are dropped and why.

Reads the scan once, at the scale at which focus is measured. The table, the summary and the picture all come from one survey,
so they agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import TilesLostError, TissueError
from stpath_assets.settings import Settings
from stpath_assets.slides import Slide, scale
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles.grid import TILE_MPP, TILE_PX, Grid, box_means, boxes_on, side_in_level0
from stpath_assets.tiles.layouts import GivenTiles, HasSpots, Layout, RegularGrid, SpotGrid
from stpath_assets.tiles.quality import CODE_VERSION as QUALITY_CODE_VERSION
from stpath_assets.tiles.quality import (
    FOCUS_MPP,
    REASONS,
    UNREADABLE,
    QualityParameters,
    measure,
    quality_maps,
    reduce_to,
    sentence,
)
from stpath_assets.tiles.reader import OnUnreadable, find_readable
from stpath_assets.tiles.regions import Regions
from stpath_assets.tiles.tissue import CODE_VERSION as TISSUE_CODE_VERSION
from stpath_assets.tiles.tissue import Layers, TissueParameters, layers_of_image

CODE_VERSION = "4"
CODE = f"{CODE_VERSION}.{TISSUE_CODE_VERSION}.{QUALITY_CODE_VERSION}"
"""Version of all the code that a grid depends on."""


COARSER = 0.02
"""Relative difference above which a scan counts as coarser than its tiles: 0.50 and 0.51 µm are the same objective."""


@dataclass(frozen=True)
class TileParameters:
    """The parameters of a grid: tiles of `tile_px` pixels at `mpp` µm per pixel, placed by `layout` on the tissue that `tissue`
    finds. A tile whose pixels cannot be decoded fails the slide; with `on_unreadable="drop"` it is dropped and recorded.
    """

    tile_px: int = TILE_PX
    mpp: float = TILE_MPP
    layout: Layout = field(default_factory=RegularGrid)
    tissue: TissueParameters = field(default_factory=TissueParameters)
    on_unreadable: OnUnreadable = "fail"

    def __post_init__(self) -> None:
        if self.tile_px < 1 or not self.mpp > 0:
            raise ValueError("tile_px must be ≥ 1 and mpp > 0")

    @classmethod
    def of(cls, settings: Settings) -> "TileParameters":
        """Return the parameters of the regular grid in the settings."""
        grid = RegularGrid(settings.stride, settings.min_tissue, QualityParameters(drop=settings.quality_filter))
        return cls(layout=grid, on_unreadable=settings.unreadable)

    def about(self, spots: HasSpots) -> "TileParameters":
        """Return a copy with tiles centred on spots."""
        return replace(self, layout=SpotGrid.of(spots))

    def of_given(self, given: GivenTiles) -> "TileParameters":
        """Return a copy with tiles that came with their features. None of them is dropped."""
        return replace(self, tile_px=given.tile_px, mpp=given.mpp, layout=given, on_unreadable="fail")

    def extend(
        self, slide: Fingerprint, regions_sha256: str | None = None, laid: Mapping[str, Any] | None = None
    ) -> Fingerprint:
        """Return the fingerprint of a slide's grid. `laid` replaces the facts of the layout."""
        facts = dict(self.layout.facts() if laid is None else laid)
        if self.on_unreadable == "drop":
            facts["tile_unreadable"] = "drop"
        return slide.extend(
            "tile_grids", CODE, tile_px=self.tile_px, tile_mpp=self.mpp, regions_sha256=regions_sha256, **facts,
            **self.tissue.facts(),
        )  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """The result of surveying a scan.

    `candidates` are the N tiles with enough tissue; on spots, and for given tiles, all tiles. `columns` holds the measures of
    `quality.measure`, `reason` (N,) why each tile is dropped (empty if it is kept), and `spot_ids` the tiles' spots, if any.
    `image` (H, W, 3) uint8 is the scan at the scale of `layers`. `places` counts all tiles considered, `outside` the spots too
    close to the edge for a tile.
    """

    slide_id: str
    size_px: tuple[int, int]
    parameters: TileParameters
    image: npt.NDArray[np.uint8]
    layers: Layers
    places: int
    outside: int
    candidates: Grid
    columns: dict[str, npt.NDArray]
    reason: npt.NDArray[np.str_]
    spot_ids: list[str] | None

    @cached_property
    def table(self) -> pa.Table:
        """The kept tiles, with the columns of `tile_grids`; may be empty."""
        keep = np.flatnonzero(self.reason == "")
        grid, n = self.candidates.take(keep), len(keep)
        columns = {
            "x_px": grid.x_px,
            "y_px": grid.y_px,
            "center_x_px": grid.x_px + grid.side_px / 2,
            "center_y_px": grid.y_px + grid.side_y_px / 2,
            **{name: values[keep] for name, values in self.columns.items()},
        }
        # As lists: for arrays, pyarrow imports pandas, which takes longer than everything here.
        return pa.table(
            {
                "slide_id": [self.slide_id] * n,
                "tile_id": grid.tile_ids(),
                "side_px": [grid.side_px] * n,
                "side_y_px": [grid.side_y_px] * n,
                "tile_px": [self.parameters.tile_px] * n,
                "mpp": [self.parameters.mpp] * n,
                "spot_id": [None if self.spot_ids is None else self.spot_ids[i] for i in keep.tolist()],
                **{name: [None if v != v else v for v in values.tolist()] for name, values in columns.items()},
            },
            schema=TILE_GRIDS.schema,
        )

    def summary(self) -> dict[str, Any]:
        """Return JSON values: counts of `candidates` and `outside`, the `dropped` tile_ids by reason, and the shares of the scan
        that are tissue and pen.
        """
        ids = np.array(self.candidates.tile_ids(), str)
        return {
            "candidates": len(self.candidates),
            "outside": self.outside,
            "dropped": {r: ids[self.reason == r].tolist() for r in REASONS if (self.reason == r).any()},
            "tissue_share": float(self.layers.tissue.mean()),
            "pen_share": float(self.layers.pen.mean()),
        }

    def require_tiles(self) -> None:
        """Raise `TissueError`, with the reason, if no tile is kept."""
        if self.table.num_rows:
            return
        summary = self.summary()
        if summary["outside"]:
            raise TissueError(
                f"{self.slide_id}: no spot has room for its tile inside the scan; check the spots' positions and the mpp"
            )
        if summary["candidates"]:
            dropped = {reason: len(ids) for reason, ids in summary["dropped"].items()}
            raise TilesLostError(
                f"{self.slide_id}: all {summary['candidates']} tiles of tissue were dropped: {sentence(dropped)}; "
                "look at the scan, switch quality_filter off, or retire it"
            )
        least = layout.min_tissue if isinstance(layout := self.parameters.layout, RegularGrid) else 0.0
        raise TissueError(
            f"{self.slide_id}: no tissue found: none of {self.places} tiles is at least {least:.0%} tissue "
            f"({summary['tissue_share']:.1%} of the slide is); look at the scan, or retire it"
        )

    def overlay(self) -> npt.NDArray[np.uint8]:
        """Draw the mask's outline, the kept tiles, and the dropped tiles by reason."""
        from stpath_assets.tiles.overlay import draw_tiles

        groups = {
            r or "kept": self.candidates.take(self.reason == r) for r in ("", *REASONS) if (self.reason == r).any()
        }
        corners = {name: np.stack([g.x_px, g.y_px], axis=1) for name, g in groups.items()}
        sides = (self.candidates.side_px, self.candidates.side_y_px)
        return draw_tiles(self.image, self.size_px, self.layers.tissue, corners, sides)


def survey_slide(slide: Slide, slide_id: str, parameters: TileParameters, regions: Regions | None = None) -> Survey:
    """Survey a scan. Raises `TissueError` if the scan is smaller than one tile of a regular grid."""
    side_px, side_y_px = (side_in_level0(parameters.tile_px, parameters.mpp, mpp) for mpp in slide.mpp_xy)
    size, layout = (slide.width_px, slide.height_px), parameters.layout
    laid = layout.lay(size, (side_px, side_y_px))
    if len(laid.grid) == 0 and isinstance(layout, RegularGrid):
        raise TissueError(
            f"{slide_id}: {size[0]} by {size[1]} pixels is smaller than one tile of "
            f"{parameters.tile_px * parameters.mpp:g} µm; check its mpp, {scale.text(slide.mpp_xy, 'g')}"
        )
    dropping = parameters.on_unreadable == "drop"
    image, small, unseen = _images(slide, parameters.tissue.mpp, dropping)
    layers = layers_of_image(small, parameters.tissue)
    if regions is not None:
        layers = replace(layers, tissue=regions.apply(layers.tissue, *size, slide_id))
    columns = measure(quality_maps(image, small, layers), laid.grid, *size)
    # The tissue of a tile is unknown if part of it could not be read.
    places = len(laid.grid)
    hidden = box_means(unseen, *boxes_on(unseen.shape, laid.grid, *size)) > 0 if dropping else np.zeros(places, bool)
    keep = layout.has_tissue(columns) | hidden
    grid, columns, hidden = laid.grid.take(keep), {k: v[keep] for k, v in columns.items()}, hidden[keep]
    reason = layout.reasons(columns)
    if dropping:
        reason = np.where(hidden | ~find_readable(slide, grid, parameters.tile_px), UNREADABLE, reason)
    spot_ids = None if laid.spot_ids is None else [laid.spot_ids[i] for i in np.flatnonzero(keep).tolist()]
    return Survey(slide_id, size, parameters, small, layers, places, laid.outside, grid, columns, reason, spot_ids)


def _images(
    slide: Slide, mask_mpp: float, partly: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return the scan at the scale of focus and at the mask's, from one pass, averaged by area.

    With `partly`, unreadable blocks are no error; the third array is the share of each mask pixel that could not be read.
    """
    finest = min(FOCUS_MPP, mask_mpp)
    whole, unseen = slide.read_scaled_partly(finest) if partly else (slide.read_scaled(finest), None)

    def at(mpp: float) -> npt.NDArray[np.uint8]:
        shape = slide.scaled_shape(mpp)
        return whole if whole.shape[:2] == shape else reduce_to(whole, shape)

    share = np.zeros(slide.scaled_shape(mask_mpp), np.float32)
    if unseen is not None:
        share = reduce_to(unseen.astype(np.float32), share.shape)
    return at(FOCUS_MPP), at(mask_mpp), share


def notes_of(slide_id: str, slide_mpp: float, tile_mpp: float, summary: dict[str, Any]) -> Iterator[str]:
    """Yield the notes on a slide's tiles, one line each. `slide_mpp` is the coarser of x and y."""
    if slide_mpp / tile_mpp > 1 + COARSER:
        yield (
            f"{slide_id}: the scan has {slide_mpp:g} µm per pixel, coarser than the tiles' {tile_mpp:g}: "
            f"they are enlarged {slide_mpp / tile_mpp:.2f} times"
        )
    dropped = {reason: len(ids) for reason, ids in summary["dropped"].items()}
    if dropped:
        yield f"{slide_id}: {sum(dropped.values())} of {summary['candidates']} tiles of tissue dropped: {sentence(dropped)}"
    if summary["outside"]:
        yield f"{slide_id}: {summary['outside']} spots are too close to the scan's edge for a tile"
