"""One look at a scan that all of its tiles come from: mask, measures, filter, and what became of every tile.

Reads the scan once, at the scale of focus, and holds what it found, so that the table, the summary and the picture agree.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import TissueError
from stpath_assets.settings import Settings
from stpath_assets.slides import Slide, scale
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles.given import GivenTiles
from stpath_assets.tiles.grid import Grid, box_means, boxes_on, regular_grid, side_in_level0, spot_grid
from stpath_assets.tiles.quality import CODE_VERSION as QUALITY_CODE_VERSION
from stpath_assets.tiles.quality import (
    FOCUS_MPP,
    REASONS,
    UNREADABLE,
    QualityParameters,
    measure,
    quality_maps,
    reasons,
    reduced,
)
from stpath_assets.tiles.reader import OnUnreadable, readable
from stpath_assets.tiles.regions import Regions
from stpath_assets.tiles.tissue import CODE_VERSION as TISSUE_CODE_VERSION
from stpath_assets.tiles.tissue import Layers, TissueParameters, layers_of_image

CODE_VERSION = "3"
CODE = f"{CODE_VERSION}.{TISSUE_CODE_VERSION}.{QUALITY_CODE_VERSION}"
"""Version of all the code that a grid depends on."""

MIN_TISSUE = 0.25
"""Least tissue fraction of a tile that is kept."""


class GivenFacts(Protocol):
    """What a given grid's fingerprint depends on; `GivenTiles` has it."""

    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def tile_px(self) -> int: ...  # noqa: D102
    @property
    def mpp(self) -> float: ...  # noqa: D102


class HasSpots(Protocol):
    """Spots with their ids and centres, (N, 2) level-0 pixels: measured expression has them."""

    @property
    def spot_ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def xy_px(self) -> npt.NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class TileParameters:
    """What a grid depends on beside the scan: `tile_px` pixels at `mpp` µm per pixel, `stride` tile sides apart, with
    `min_tissue` of tissue at least and of the quality that `quality` asks for. Tiles whose pixels cannot be decoded fail the
    slide, or are dropped and recorded where `on_unreadable` says so.
    """

    tile_px: int = 224
    mpp: float = 0.5
    min_tissue: float = MIN_TISSUE
    stride: float = 1.0
    tissue: TissueParameters = field(default_factory=TissueParameters)
    quality: QualityParameters = field(default_factory=QualityParameters)
    on_unreadable: OnUnreadable = "fail"

    def __post_init__(self) -> None:
        if self.tile_px < 1 or not self.mpp > 0 or not 0 <= self.min_tissue <= 1 or not self.stride > 0:
            raise ValueError("tile_px must be ≥ 1, mpp > 0, min_tissue from 0 to 1 and stride > 0")

    @classmethod
    def of(cls, settings: Settings) -> "TileParameters":
        """Those that the settings ask for."""
        quality = QualityParameters(drop=settings.quality_filter)
        return cls(
            min_tissue=settings.min_tissue, stride=settings.stride, quality=quality, on_unreadable=settings.unreadable
        )

    def extend(
        self,
        slide: Fingerprint,
        regions_sha256: str | None = None,
        spots_digest: str | None = None,
        given: "GivenFacts | None" = None,
    ) -> Fingerprint:
        """The fingerprint of the grid of a slide, with its regions and about its spots or of given tiles, if any."""
        # What a grid about spots, or a given one, does not depend on is not among its facts.
        laid: dict[str, Any] = {"min_tissue": self.min_tissue, "tile_stride": self.stride, **self.quality.facts()}
        tile_px, tile_mpp = self.tile_px, self.mpp
        if given is not None:
            laid = {"tile_coords_sha256": given.sha256}
            tile_px, tile_mpp = given.tile_px, given.mpp
        elif spots_digest is not None:
            laid = {"tile_spots": spots_digest}
        if self.on_unreadable == "drop" and given is None:
            laid["tile_unreadable"] = "drop"
        return slide.extend(
            "tile_grids", CODE, tile_px=tile_px, tile_mpp=tile_mpp, regions_sha256=regions_sha256, **laid,
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

    def overlay(self) -> npt.NDArray[np.uint8]:
        """The picture of the tiles: the mask's outline, kept and dropped tiles by reason."""
        from stpath_assets.tiles.overlay import draw_tiles

        groups = {
            r or "kept": self.candidates.take(self.reason == r) for r in ("", *REASONS) if (self.reason == r).any()
        }
        corners = {name: np.stack([g.x_px, g.y_px], axis=1) for name, g in groups.items()}
        sides = (self.candidates.side_px, self.candidates.side_y_px)
        return draw_tiles(self.image, self.size_px, self.layers.tissue, corners, sides)


def survey_slide(
    slide: Slide,
    slide_id: str,
    parameters: TileParameters,
    regions: Regions | None = None,
    spots: HasSpots | npt.NDArray | None = None,
    given: GivenTiles | None = None,
) -> Survey:
    """Looks at a scan and lays the tiles. Raises `TissueError` where the scan is smaller than a tile."""
    side_px, side_y_px = (side_in_level0(parameters.tile_px, parameters.mpp, mpp) for mpp in slide.mpp_xy)
    size = (slide.width_px, slide.height_px)
    if given is not None:
        grid, spot_ids, outside = given.grid, None, 0
    else:
        grid, spot_ids, outside = _lay(*size, side_px, side_y_px, parameters.stride, spots)
    regular = spots is None and given is None
    if len(grid) == 0 and regular:
        raise TissueError(
            f"{slide_id}: {size[0]} by {size[1]} pixels is smaller than one tile of "
            f"{parameters.tile_px * parameters.mpp:g} µm; check its mpp, {scale.text(slide.mpp_xy, 'g')}"
        )
    dropping = parameters.on_unreadable == "drop" and given is None
    image, small, unseen = _images(slide, parameters.tissue.mpp, dropping)
    layers = layers_of_image(small, parameters.tissue)
    if regions is not None:
        layers = replace(layers, tissue=regions.apply(layers.tissue, *size, slide_id))
    columns = measure(quality_maps(image, small, layers), grid, *size)
    places = len(grid)
    # Of a tile that the mask has not seen whole, nobody knows how much tissue it has.
    hidden = box_means(unseen, *boxes_on(unseen.shape, grid, *size)) > 0 if dropping else np.zeros(places, bool)
    if regular:
        keep = (columns["tissue_fraction"] >= max(parameters.min_tissue, np.finfo(float).tiny)) | hidden
        grid, columns, hidden = grid.take(keep), {k: v[keep] for k, v in columns.items()}, hidden[keep]
    drop = regular and parameters.quality.drop
    reason = reasons(columns, parameters.quality) if drop else np.full(len(grid), "", "<U8")
    if dropping:
        reason = np.where(hidden | ~readable(slide, grid, parameters.tile_px), UNREADABLE, reason)
    return Survey(slide_id, size, parameters, small, layers, places, outside, grid, columns, reason, spot_ids)


def _lay(
    width_px: int, height_px: int, side_px: float, side_y_px: float, stride: float, spots: HasSpots | npt.NDArray | None
) -> tuple[Grid, list[str] | None, int]:
    """All tiles that may be, the ids of their spots, if any, and how many spots have no room."""
    if spots is None:
        return regular_grid(width_px, height_px, side_px, stride, side_y_px), None, 0
    centers, ids = _positions(spots)
    grid, spot = spot_grid(centers, width_px, height_px, side_px, side_y_px)
    return grid, [ids[i] for i in spot], len(centers) - len(grid)


def _positions(spots: HasSpots | npt.NDArray) -> tuple[npt.NDArray[np.float64], Sequence[str]]:
    ids: Sequence[str]
    if isinstance(spots, np.ndarray):
        centers, ids = spots.astype(np.float64), [str(i) for i in range(len(spots))]
    else:
        centers, ids = np.asarray(spots.xy_px, np.float64), spots.spot_ids
    if centers.ndim != 2 or centers.shape[1] != 2 or not np.isfinite(centers).all():
        raise ValueError(f"spots must be finite centres of shape (N, 2), not {centers.shape}")
    return centers, ids


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


def digest_of(spots: HasSpots) -> str:
    """SHA-256 over the spots' ids and centres, hexadecimal."""
    digest = hashlib.sha256("\n".join(spots.spot_ids).encode())
    digest.update(np.ascontiguousarray(spots.xy_px, "<f8").tobytes())
    return digest.hexdigest()
