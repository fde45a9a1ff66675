"""One look at a scan that all of its tiles come from: mask, measures, filter, and what became of every tile.

Reads the scan once, at the scale of focus, and holds what it found, so that the table, the summary and the picture agree.
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
    reduced,
    sentence,
)
from stpath_assets.tiles.reader import OnUnreadable, readable
from stpath_assets.tiles.regions import Regions
from stpath_assets.tiles.tissue import CODE_VERSION as TISSUE_CODE_VERSION
from stpath_assets.tiles.tissue import Layers, TissueParameters, layers_of_image

CODE_VERSION = "4"
CODE = f"{CODE_VERSION}.{TISSUE_CODE_VERSION}.{QUALITY_CODE_VERSION}"
"""Version of all the code that a grid depends on."""


COARSER = 0.02
"""How much coarser than its tiles a scan may be before the user is told, relative: 0.50 and 0.51 are the same
objective.
"""


@dataclass(frozen=True)
class TileParameters:
    """What a grid depends on beside the scan: tiles of `tile_px` pixels at `mpp` µm per pixel, laid as `layout` says over the
    tissue that `tissue` finds. Tiles whose pixels cannot be decoded fail the slide; with `on_unreadable="drop"` they are dropped
    and recorded.
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
        """Those of the regular grid that the settings ask for."""
        grid = RegularGrid(settings.stride, settings.min_tissue, QualityParameters(drop=settings.quality_filter))
        return cls(layout=grid, on_unreadable=settings.unreadable)

    def about(self, spots: HasSpots) -> "TileParameters":
        """The same, of tiles centred on spots."""
        return replace(self, layout=SpotGrid.of(spots))

    def of_given(self, given: GivenTiles) -> "TileParameters":
        """The same, of tiles that came with their features: none of them is dropped."""
        return replace(self, tile_px=given.tile_px, mpp=given.mpp, layout=given, on_unreadable="fail")

    def extend(
        self, slide: Fingerprint, regions_sha256: str | None = None, laid: Mapping[str, Any] | None = None
    ) -> Fingerprint:
        """The fingerprint of the grid of a slide with its regions, if any; `laid` takes the place of the layout's facts."""
        facts = dict(self.layout.facts() if laid is None else laid)
        if self.on_unreadable == "drop":
            facts["tile_unreadable"] = "drop"
        return slide.extend(
            "tile_grids", CODE, tile_px=self.tile_px, tile_mpp=self.mpp, regions_sha256=regions_sha256, **facts,
            **self.tissue.facts(),
        )  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What was seen of a scan.

    `candidates` are the tiles with enough tissue, or about spots and of given ones all; `columns` holds what
    `quality.measure` found of each, `reason` (N,) why it is dropped, empty where it is kept, `spot_ids` theirs, if any. `image`
    (H, W, 3) uint8 shows the scan at the scale of `layers`. `places` counts the tiles that were looked at, `outside` the spots
    without room.
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
        # As lists: of arrays, pyarrow asks pandas whether they are its own, and to load it takes longer than all of this.
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
        """JSON values: `candidates` and `outside` counts, `dropped` tile_ids by reason, and the shares of the scan's area
        that are tissue and under pen.
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
        """Raises `TissueError` where no tile is kept, saying why."""
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
        """The picture of the tiles: the mask's outline, kept and dropped tiles by reason."""
        from stpath_assets.tiles.overlay import draw_tiles

        groups = {
            r or "kept": self.candidates.take(self.reason == r) for r in ("", *REASONS) if (self.reason == r).any()
        }
        corners = {name: np.stack([g.x_px, g.y_px], axis=1) for name, g in groups.items()}
        sides = (self.candidates.side_px, self.candidates.side_y_px)
        return draw_tiles(self.image, self.size_px, self.layers.tissue, corners, sides)


def survey_slide(slide: Slide, slide_id: str, parameters: TileParameters, regions: Regions | None = None) -> Survey:
    """Looks at a scan and lays the tiles. Raises `TissueError` where the scan is smaller than a tile of a regular grid."""
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
    # Of a tile that the mask has not seen whole, nobody knows how much tissue it has.
    places = len(laid.grid)
    hidden = box_means(unseen, *boxes_on(unseen.shape, laid.grid, *size)) > 0 if dropping else np.zeros(places, bool)
    keep = layout.has_tissue(columns) | hidden
    grid, columns, hidden = laid.grid.take(keep), {k: v[keep] for k, v in columns.items()}, hidden[keep]
    reason = layout.reasons(columns)
    if dropping:
        reason = np.where(hidden | ~readable(slide, grid, parameters.tile_px), UNREADABLE, reason)
    spot_ids = None if laid.spot_ids is None else [laid.spot_ids[i] for i in np.flatnonzero(keep).tolist()]
    return Survey(slide_id, size, parameters, small, layers, places, laid.outside, grid, columns, reason, spot_ids)


def _images(
    slide: Slide, mask_mpp: float, partly: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The scan at the scale of focus and at the mask's, by area, from one pass over it, and the share of each pixel of the
    latter that could not be read; where that is no error (`partly`).
    """
    finest = min(FOCUS_MPP, mask_mpp)
    whole, unseen = slide.read_scaled_partly(finest) if partly else (slide.read_scaled(finest), None)

    def at(mpp: float) -> npt.NDArray[np.uint8]:
        shape = slide.scaled_shape(mpp)
        return whole if whole.shape[:2] == shape else reduced(whole, shape)

    share = np.zeros(slide.scaled_shape(mask_mpp), np.float32)
    if unseen is not None:
        share = reduced(unseen.astype(np.float32), share.shape)
    return at(FOCUS_MPP), at(mask_mpp), share


def notes_of(slide_id: str, slide_mpp: float, tile_mpp: float, summary: dict[str, Any]) -> Iterator[str]:
    """What the user is told of a slide's tiles, a line each; `slide_mpp` is the coarser of x and y."""
    if slide_mpp / tile_mpp > 1 + COARSER:
        yield (
            f"{slide_id}: the scan has {slide_mpp:g} µm per pixel, coarser than the tiles' {tile_mpp:g}: "
            f"they are enlarged {slide_mpp / tile_mpp:.2f} times"
        )
    dropped = {reason: len(ids) for reason, ids in summary["dropped"].items()}
    if dropped:
        yield f"{slide_id}: {sum(dropped.values())} of {summary['candidates']} tiles of tissue dropped: {sentence(dropped)}"
    if summary["outside"]:
        yield f"{slide_id}: {summary['outside']} spots are too near the scan's edge for a tile"
