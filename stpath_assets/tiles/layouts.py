"""Layouts of tiles: a regular grid, centred on spots, or given by another tool.

    RegularGrid(stride=0.5)        SpotGrid.of(read_spots(path))        trident.read(path, row).tiles, which are GivenTiles

Each layout knows its places, the facts of its fingerprint, and which of its tiles may be dropped. Geometry is in `grid`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from stpath_assets.tiles.grid import Grid, regular_grid, spot_grid
from stpath_assets.tiles.quality import QualityParameters, reasons

MIN_TISSUE = 0.25
"""Minimum tissue fraction of a kept tile."""

Columns = Mapping[str, npt.NDArray]


class HasSpots(Protocol):
    """Spots with ids and centres, (N, 2) level-0 pixels, as measured expression has them."""

    @property
    def spot_ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def xy_px(self) -> npt.NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class Laid:
    """Places for tiles. `spot_ids` name the tiles' spots, if any; `outside` counts the spots too close to the edge for a tile."""

    grid: Grid
    spot_ids: Sequence[str] | None = None
    outside: int = 0


@dataclass(frozen=True)
class RegularGrid:
    """Tiles from the scan's top-left corner, `stride` tile sides apart, with at least `min_tissue` tissue and the quality that
    `quality` requires.
    """

    stride: float = 1.0
    min_tissue: float = MIN_TISSUE
    quality: QualityParameters = field(default_factory=QualityParameters)

    def __post_init__(self) -> None:
        if not 0 <= self.min_tissue <= 1 or not self.stride > 0:
            raise ValueError("min_tissue must be from 0 to 1 and stride > 0")

    def facts(self) -> dict[str, Any]:
        """Return the facts of the grid's fingerprint."""
        return {"min_tissue": self.min_tissue, "tile_stride": self.stride, **self.quality.facts()}

    def lay(self, size_px: tuple[int, int], sides_px: tuple[float, float]) -> Laid:
        """Return all tiles that lie completely inside a scan of this size. Sides along x and y in level-0 pixels."""
        return Laid(regular_grid(*size_px, sides_px[0], self.stride, sides_px[1]))

    def has_tissue(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return which tiles have enough tissue, (N,) bool."""
        return np.asarray(columns["tissue_fraction"] >= max(self.min_tissue, np.finfo(float).tiny))

    def reasons(self, columns: Columns) -> npt.NDArray[np.str_]:
        """Return why each tile is dropped, (N,) of `quality.REASONS`; empty if it is kept."""
        return reasons(columns, self.quality) if self.quality.drop else _no_reasons(columns)


class _Wanted(ABC):
    """A layout that keeps all its tiles, whatever their tissue and quality. Its only fact is the digest of their places,
    named `FACT`.
    """

    FACT: ClassVar[str]

    @property
    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of the tiles' names and places, hexadecimal."""

    @classmethod
    def facts_of(cls, sha256: str) -> dict[str, Any]:
        """Return `facts` for a known digest."""
        return {cls.FACT: sha256}

    def facts(self) -> dict[str, Any]:
        """Return the facts of the grid's fingerprint."""
        return self.facts_of(self.sha256)

    def has_tissue(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return True for all tiles."""
        return np.ones(len(columns["tissue_fraction"]), bool)

    def reasons(self, columns: Columns) -> npt.NDArray[np.str_]:
        """Return no reason for any tile."""
        return _no_reasons(columns)


@dataclass(frozen=True, eq=False)
class SpotGrid(_Wanted):
    """A tile centred on each spot, except spots too close to the scan's edge.

    `centers_px` (N, 2) float64 are the spots' centres in level-0 pixels.
    """

    FACT: ClassVar[str] = "tile_spots"

    spot_ids: Sequence[str]
    centers_px: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.centers_px.ndim != 2 or self.centers_px.shape[1] != 2 or not np.isfinite(self.centers_px).all():
            raise ValueError(f"spots must be finite centres of shape (N, 2), not {self.centers_px.shape}")

    @classmethod
    def of(cls, spots: HasSpots | npt.NDArray) -> "SpotGrid":
        """About measured spots, or an array of centres (N, 2), which are numbered."""
        if isinstance(spots, np.ndarray):
            return cls([str(i) for i in range(len(spots))], spots.astype(np.float64))
        return cls(spots.spot_ids, np.asarray(spots.xy_px, np.float64))

    @property
    def sha256(self) -> str:
        """SHA-256 of the spots' ids and centres, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.spot_ids).encode())
        digest.update(np.ascontiguousarray(self.centers_px, "<f8").tobytes())
        return digest.hexdigest()

    def lay(self, size_px: tuple[int, int], sides_px: tuple[float, float]) -> Laid:
        """Return the spots' tiles on a scan of this size. Sides along x and y in level-0 pixels."""
        grid, spot = spot_grid(self.centers_px, *size_px, *sides_px)
        return Laid(grid, [self.spot_ids[i] for i in spot], len(self.centers_px) - len(grid))


@dataclass(frozen=True)
class GivenTiles(_Wanted):
    """Tiles of another tool, imported with their features. All of them are kept in place.

    The encoder saw each tile as `tile_px` pixels at `mpp` µm per pixel. `x_px`, `y_px` (N,) float64 are top-left corners,
    `side_px` and `side_y_px` the sides along x and y, level-0 pixels. `notes` are notes for the user.
    """

    FACT: ClassVar[str] = "tile_coords_sha256"

    tile_ids: Sequence[str]
    x_px: npt.NDArray[np.float64]
    y_px: npt.NDArray[np.float64]
    side_px: float
    side_y_px: float
    tile_px: int
    mpp: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tile_ids)

    @property
    def grid(self) -> Grid:
        """The tiles' geometry."""
        return Grid.of_tile_ids(self.tile_ids, self.x_px, self.y_px, self.side_px, self.side_y_px)

    @property
    def sha256(self) -> str:
        """SHA-256 of ids, corners and sides, hexadecimal."""
        digest = hashlib.sha256("\n".join(self.tile_ids).encode())
        digest.update(np.stack([self.x_px, self.y_px], axis=1).astype("<f8").tobytes())
        digest.update(np.float64(self.side_px).tobytes())
        if self.side_y_px != self.side_px:
            digest.update(np.float64(self.side_y_px).tobytes())
        return digest.hexdigest()

    def lay(self, size_px: tuple[int, int], sides_px: tuple[float, float]) -> Laid:
        """Return the given tiles."""
        return Laid(self.grid)


Layout = RegularGrid | SpotGrid | GivenTiles


def _no_reasons(columns: Columns) -> npt.NDArray[np.str_]:
    return np.full(len(columns["tissue_fraction"]), "", "<U8")
