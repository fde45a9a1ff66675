"""From tiles to their table of features, by an encoder chosen by name.

What `gigapath_features` stores. An encoder is anything with a name and `encode(tiles uint8) -> (B, 1536)
float32`; which there are, and what identifies each, is said here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets import weights
from stpath_assets.errors import FeatureError, SettingsError
from stpath_assets.features import demo
from stpath_assets.features.ahead import Ahead
from stpath_assets.features.parts import Parts
from stpath_assets.fingerprint import Fingerprint, sha256_of_file
from stpath_assets.progress import track
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Made, Store
from stpath_assets.tables import GIGAPATH_FEATURES, TILE_GRIDS
from stpath_assets.tiles import Tiles, centers_of
from stpath_assets.tiles.reader import CODE_VERSION as PIXELS_CODE_VERSION

CODE_VERSION = "1"
DIM = 1536
ENCODERS = ("gigapath", "demo")

PIECE = 128
"""Tiles a finished piece: what a killed run may lose is seconds on a GPU, minutes without."""


class Encoder(Protocol):
    """Turns tiles into features."""

    name: str

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB to (B, 1536) float32."""
        ...


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder that is chosen but not loaded: enough to say what its features would be made from.

    `path` is a local weights file, or None for the hub's.
    """

    name: str
    path: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.name not in ENCODERS:
            raise SettingsError(f"{self.name!r} is no encoder; known: {', '.join(ENCODERS)}")

    @classmethod
    def of(cls, name: str, settings: Settings, device: str | None = None) -> "EncoderChoice":
        """An encoder with its weights where the settings say."""
        return cls(name, settings.gigapath_weights, device or settings.device)

    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; of nothing but its version for the demo descriptor, which has no
        weights.
        """
        return "none" if self.name == "demo" else _file_sha256(*_version(weights.locate(self.path, weights.GIGAPATH)))

    def load(self) -> Encoder:
        """The encoder itself, kept for the life of the process: one load serves every slide of a batch."""
        if self.name == "demo":
            return demo.DemoEncoder()
        return _gigapath(*_version(weights.locate(self.path, weights.GIGAPATH)), weights.device(self.device))

    def extend(self, tiles: Fingerprint) -> Fingerprint:
        """The fingerprint of features of a grid of tiles."""
        version = demo.VERSION if self.name == "demo" else "1"
        return tiles.extend(
            "gigapath_features",
            f"{CODE_VERSION}.{PIXELS_CODE_VERSION}.{version}",
            encoder=self.name,
            encoder_weights_sha256=self.weights_sha256(),
        )


@dataclass(frozen=True)
class Features:
    """Features of the tiles of one slide, in table order.

    `matrix` (N, 1536) float32; `centers_px` (N, 2) float64 level-0 pixels; `slide_mpp` and `tile_mpp` µm per
    pixel.
    """

    slide_id: str
    tile_ids: list[str]
    matrix: npt.NDArray[np.float32]
    centers_px: npt.NDArray[np.float64]
    slide_mpp: float
    tile_mpp: float
    encoder: str

    def __len__(self) -> int:
        return len(self.tile_ids)

    def to_table(self) -> pa.Table:
        """The rows of `gigapath_features`."""
        n = len(self)
        feature = pa.FixedSizeListArray.from_arrays(pa.array(self.matrix.reshape(-1), pa.float32()), DIM)
        return pa.table(
            [pa.repeat(self.slide_id, n), pa.array(self.tile_ids), feature, pa.repeat(self.encoder, n)],
            schema=GIGAPATH_FEATURES.schema,
        )


def embed(
    tiles: Tiles,
    model: str | EncoderChoice = "gigapath",
    batch_size: int = 16,
    *,
    device: str = "auto",
    parts: Parts | None = None,
) -> Features:
    """Embeds the tiles of a slide, in table order; `parts` keeps finished pieces and takes up those of a killed run.

    `model` is `gigapath` (weights by STPATH_GIGAPATH_WEIGHTS, else from the hub), `demo`, or a choice with a
    weights file of its own. Raises `WeightsError` where the weights cannot be had, `SlideError` where the
    scan cannot be read, `FeatureError` where a feature is not finite.
    """
    choice = model if isinstance(model, EncoderChoice) else EncoderChoice.of(model, load_settings(), device)
    encoder = choice.load()
    matrix = np.empty((len(tiles), DIM), np.float32)
    kept = parts.read() if parts else None
    done = 0 if kept is None else len(kept)
    matrix[:done] = kept if kept is not None else 0
    rest = replace(tiles, table=tiles.table.slice(done))
    ahead = Ahead(_batches(rest, batch_size) if len(rest) else iter(()))
    for batch in track(ahead, f"{tiles.slide_id}: features", len(tiles), len, done):
        matrix[done : done + len(batch)] = encoder.encode(batch)
        done += len(batch)
        if parts and done % parts.size == 0:
            parts.write(done - parts.size, matrix[done - parts.size : done])
    ids = tiles.tile_ids
    bad = [ids[i] for i in np.flatnonzero(~np.isfinite(matrix).all(axis=1))]
    if bad:
        raise FeatureError(
            f"{tiles.slide_id}: {choice.name} gave features that are not finite for {len(bad)} tiles, "
            f"first {bad[0]}; check its weights"
        )
    return Features(tiles.slide_id, ids, matrix, tiles.centers_px, tiles.slide.mpp, tiles.mpp, choice.name)


def store_features(store: Store, row: Registered, choice: EncoderChoice, batch_size: int) -> Made:
    """Brings a registered slide's `gigapath_features` up to date with its stored tiles."""
    fingerprint = choice.extend(store.require(TILE_GRIDS.name, row.slide_id))
    if store.is_current(GIGAPATH_FEATURES.name, row.slide_id, fingerprint):
        return Made(fingerprint, False)
    # Whole batches a piece: a resumed run then computes the same batches, and so the same bits.
    parts = Parts(store, row.slide_id, fingerprint.digest, -(-PIECE // batch_size) * batch_size)
    with row.open() as slide:
        features = embed(Tiles(slide, store.read(TILE_GRIDS.name, row.slide_id)), choice, batch_size, parts=parts)
    store.write(GIGAPATH_FEATURES.name, row.slide_id, features.to_table(), fingerprint)
    parts.clear()
    return Made(fingerprint, True)


def read_features(store: Store, slide_id: str) -> Features:
    """A slide's stored features with the tiles they belong to.

    Raises `FeatureError` where the tiles have been made anew since, or the features have a wrong width.
    """
    tiles, rows = store.read(TILE_GRIDS.name, slide_id), store.read(GIGAPATH_FEATURES.name, slide_id)
    stored = store.require(GIGAPATH_FEATURES.name, slide_id)
    if not stored.extends(store.require(TILE_GRIDS.name, slide_id)) or not rows["tile_id"].equals(tiles["tile_id"]):
        raise FeatureError(
            f"{slide_id}: its features belong to an earlier grid of tiles; run: stpath-assets run {slide_id}"
        )
    width = getattr(rows.schema.field("feature").type, "list_size", None)
    if width != DIM:
        raise FeatureError(f"{slide_id}: its features have width {width}, not {DIM}; run: stpath-assets run {slide_id}")
    matrix = rows["feature"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)
    return Features(
        slide_id, rows["tile_id"].to_pylist(), matrix, centers_of(tiles), float(stored.facts["slide_mpp"]),
        float(stored.facts["tile_mpp"]), str(stored.facts["encoder"]),
    )  # fmt: skip


def _batches(tiles: Tiles, size: int) -> Iterator[npt.NDArray[np.uint8]]:
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}")
    pixels = tiles.pixels()
    while batch := list(islice(pixels, size)):
        yield np.stack(batch)


def _version(path: Path) -> tuple[Path, int]:
    """What a cache of a file goes by: another file under the same path is another one."""
    return path, path.stat().st_mtime_ns


@lru_cache(maxsize=1)
def _gigapath(path: Path, _mtime: int, device: str) -> Encoder:
    from stpath_assets.features.gigapath import GigaPathEncoder

    return GigaPathEncoder.load(path, device)


@lru_cache(maxsize=8)
def _file_sha256(path: Path, _mtime: int) -> str:
    # Once a process: 4.5 GB take seconds, and a batch of slides asks once a slide.
    return sha256_of_file(path)
