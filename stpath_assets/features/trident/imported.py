"""Checks a feature file in TRIDENT's layout: which slide it belongs to, where its tiles are, and what made its features.

Opening and writing such files is in `files`.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import FeatureError
from stpath_assets.slides import Registered, scale
from stpath_assets.tables import FEATURE_DIM as DIM
from stpath_assets.tiles import TILE_MPP, TILE_PX, GivenTiles

CODE_VERSION = "1"
SIDE_UM = TILE_PX * TILE_MPP

CROPPED = 224 / 256
"""GigaPath's own transform resizes a tile to 256 px and crops it to 224 px: of a tile of 128 µm it sees 112 µm."""

TOLERANCE = 0.01
"""Relative tolerance of a tile's side. Scanners' scales differ this much from their nominal values."""

MOST_TILES = 100_000
"""A larger number is taken as a corrupt header; a tile_id has five digits."""

NAMES = ("gigapath", "prov-gigapath")
"""Accepted names of the encoder."""

NOT_SAID = "not said"

_TILE_ID = re.compile(r"r\d{5}c\d{5}|s\d{5}")
FACTS = ("encoder_weights_sha256", "encoder_precision", "encoder_code")
OURS = "stpath_"
"""Prefix of our own attributes."""


@dataclass(frozen=True)
class Imported:
    """The content of a file: its tiles, `matrix` (N, 1536) float32 in their order, and the SHA-256 of the file.

    `facts` is what the features depend on, by the names of fingerprints.
    """

    tiles: GivenTiles
    matrix: npt.NDArray[np.float32]
    sha256: str
    facts: dict[str, str]

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """Top-left corners of the tiles, (N, 2) float64 level-0 pixels."""
        return np.stack([self.tiles.x_px, self.tiles.y_px], axis=1)


class TridentFile:
    """An open file that is checked against its slide. `name` is its name in errors."""

    def __init__(self, file: Any, name: str, row: Registered) -> None:
        self._file, self._name, self._row = file, name, row
        self._coords, self._features = self._dataset("coords"), self._dataset("features")

    def read(self, sha256: str) -> Imported:
        """Read and check everything. `sha256` is the SHA-256 of the file. Raises `FeatureError` if the file is refused."""
        encoder = self._encoder()
        self._same_slide()
        n = self._shape(self._features, "features", DIM)[0]
        if self._shape(self._coords, "coords", 2)[0] != n:
            self._fail(f"has {n} features for {self._shape(self._coords, 'coords', 2)[0]} coords; export it again")
        if not 0 < n <= MOST_TILES:
            self._fail(f"has {n} tiles; from 1 to {MOST_TILES:,} can be taken")
        tiles = self._tiles(n)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            matrix = np.asarray(self._features[()], np.float32).reshape(n, DIM)
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if len(bad):
            self._fail(f"has features that are not finite in {len(bad)} of {n} rows, first {bad[0]}; make them anew")
        said = {name: self._text(self._features, f"{OURS}{name}") or NOT_SAID for name in FACTS}
        code = f"trident.{CODE_VERSION} of {said.pop('encoder_code')}"
        return Imported(
            tiles, matrix, sha256, {"encoder": encoder, **said, "encoder_code": code, "features_sha256": sha256}
        )

    def _encoder(self) -> str:
        name = self._text(self._features, "encoder")
        if name is None:
            self._fail(
                "does not say which encoder made its features; if it was GigaPath, set the attribute encoder of its "
                "dataset features to 'gigapath' (docs/trident.md)"
            )
        if name.lower() not in NAMES:
            self._fail(f"its features are of encoder {name!r}; STPath takes GigaPath's alone ('gigapath')")
        return "gigapath"

    def _same_slide(self) -> None:
        for attribute, expected in (("level0_width", self._row.width_px), ("level0_height", self._row.height_px)):
            found = self._number(attribute, required=False)
            if found is not None and found != expected:
                self._fail(f"belongs to another scan: its {attribute} is {found:g}, that of the slide {expected}")
        content = self._text(self._coords, f"{OURS}slide_sha256")
        if content not in (None, self._row.sha256):
            self._fail(
                f"was made of another scan: SHA-256 {str(content)[:12]}…, that of the slide is {self._row.sha256[:12]}…"
            )

    def _tiles(self, n: int) -> GivenTiles:
        xy = np.asarray(self._coords[()], np.float64).reshape(n, 2)
        patch = self._number("patch_size_level0")
        if not np.isfinite(xy).all():
            self._fail("has coords that are not finite; export it again")
        corners = xy
        notes: tuple[str, ...] = ()
        if f"{OURS}side_px" in self._coords.attrs:
            xy, side = self._exact(xy), self._number(f"{OURS}side_px")
            # Earlier versions did not write it.
            side_y = self._number(f"{OURS}side_y_px", required=False) or side
        else:
            xy, side, notes = self._as_seen(xy, patch)
            side_y = side
        mpp_x, mpp_y = self._row.mpp_xy
        seen_um = side * mpp_x, side_y * mpp_y
        if not all(abs(um / SIDE_UM - 1) <= TOLERANCE for um in seen_um):
            wide = scale.text((patch * mpp_x, patch * side_y / side * mpp_y), ".1f")
            self._fail(
                f"its tiles are {wide} µm wide ({patch:g} px of {scale.text(self._row.mpp_xy, 'g')} µm); "
                f"they must be {SIDE_UM:g} µm, or {SIDE_UM / CROPPED:g} µm of which GigaPath's transform takes the middle"
            )
        self._inside(corners, patch)
        if len(np.unique(xy, axis=0)) != n:
            self._fail(f"has {n - len(np.unique(xy, axis=0))} tiles at the same place as another; export it again")
        # A side that differs only in its last bits is the side of the slide's own tiles.
        exact = all(math.isclose(um, SIDE_UM, rel_tol=1e-12) for um in seen_um)
        mpp = TILE_MPP if exact else sum(seen_um) / 2 / TILE_PX
        return GivenTiles(self._tile_ids(n), xy[:, 0].copy(), xy[:, 1].copy(), side, side_y, TILE_PX, mpp, notes)

    def _as_seen(
        self, xy: npt.NDArray[np.float64], patch: float
    ) -> tuple[npt.NDArray[np.float64], float, tuple[str, ...]]:
        """Return corners and side of the part that another tool's encoder saw of each tile, and the notes on it."""
        if abs(patch * self._row.mpp * CROPPED / SIDE_UM - 1) <= TOLERANCE:
            margin = patch * (1 - CROPPED) / 2
            note = (
                f"{self._name}: of its tiles of {patch * self._row.mpp:.0f} µm the middle {SIDE_UM:g} µm are taken, "
                "as GigaPath's own transform does"
            )
            return xy + margin, patch * CROPPED, (note,)
        note = (
            f"{self._name}: its tiles of {patch * self._row.mpp:.0f} µm are taken as seen whole; a tool that scaled them to "
            "256 px and cropped 224 showed GigaPath less than STPath was trained on"
        )
        return xy, patch, (note,)

    def _inside(self, xy: npt.NDArray[np.float64], side: float) -> None:
        # Tolerate one pixel, because corners are rounded.
        low, high = xy < -1, xy + side > np.array([self._row.width_px, self._row.height_px]) + 1.0
        bad = np.flatnonzero((low | high).any(axis=1))
        if len(bad):
            x, y = xy[bad[0]]
            self._fail(
                f"{len(bad)} of {len(xy)} tiles lie outside the scan, first {bad[0]} at {x:g}, {y:g}; "
                f"the scan has {self._row.width_px} by {self._row.height_px} px"
            )

    def _exact(self, rounded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the exact corners, which `coords` holds rounded."""
        n = len(rounded)
        xy = np.stack([np.asarray(self._column(name, n)[()], np.float64) for name in ("x_px", "y_px")], axis=1)
        if not np.array_equal(np.rint(xy), rounded):
            self._fail("its x_px and y_px contradict its coords; export it again")
        return xy

    def _tile_ids(self, n: int) -> list[str]:
        """Return the file's tile_ids if it is our own, else numbers."""
        if "tile_id" in self._file:
            ids = [i.decode("ascii", "replace") for i in np.asarray(self._column("tile_id", n)[()], "S12").tolist()]
            if len(set(ids)) == n and all(_TILE_ID.fullmatch(i) for i in ids):
                return ids
            self._fail("its tile_id must hold unique ids, such as r00012c00034; export it again")
        return [f"s{i:05d}" for i in range(n)]

    def _column(self, name: str, n: int) -> Any:
        dataset = self._dataset(name)
        if dataset.shape != (n,):
            self._fail(f"its {name} has shape {dataset.shape}, not ({n},); export it again")
        return dataset

    def _dataset(self, name: str) -> Any:
        import h5py

        found = self._file.get(name) if isinstance(self._file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            self._fail(f"has no dataset {name} of its own; it takes coords and features, as TRIDENT writes them")
        return found

    def _shape(self, dataset: Any, name: str, width: int) -> tuple[int, int]:
        """Return (N, width). Accepts (1, N, width) too, as some tools write it."""
        shape = dataset.shape[1:] if len(dataset.shape) == 3 and dataset.shape[0] == 1 else dataset.shape
        if len(shape) != 2 or shape[1] != width or dataset.dtype.kind not in "fiu":
            self._fail(
                f"its {name} have shape {dataset.shape} of {dataset.dtype}; they must be numbers, (tiles, {width})"
            )
        return int(shape[0]), int(shape[1])

    def _text(self, dataset: Any, attribute: str) -> str | None:
        value = dataset.attrs.get(attribute)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        # TRIDENT writes unknown values as the word None.
        return None if text is None or str(text) in ("", "None") else str(text)

    def _number(self, attribute: str, required: bool = True) -> Any:
        text = self._text(self._coords, attribute)
        if text is None and not required:
            return None
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            self._fail(f"its coords have {attribute} {text}; a positive number of level-0 pixels is needed")
        return value

    def _fail(self, why: str) -> NoReturn:
        raise FeatureError(f"{self._name}: {why}")
