"""What steps and replicas say to each other, and the names by which they find one another.

A tile is sent as its place where the replica can read the same scan, and as pixels otherwise.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.slides import Slide

APPLICATION = "stpath-encoder"
DEPLOYMENT = "EncoderReplica"
NAMESPACE = "stpath"
COUNTER = "stpath-encoder-counter"

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


@dataclass(frozen=True)
class Places:
    """Tiles of a scan that the replica reads itself: `table` has the columns of `tile_grids`."""

    uri: str
    mpp_xy: tuple[float, float]
    sample: str
    table: pa.Table


@dataclass(frozen=True)
class Pixels:
    """Tiles as (B, H, W, 3) uint8."""

    batch: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Unreadable:
    """The replica has no such scan: it wants pixels."""

    reason: str


@dataclass(frozen=True)
class Block:
    """Features of one request, (B, dim) float32; `replica` made them on `device`."""

    features: npt.NDArray[np.float32]
    replica: str
    device: str
    gpu_memory_bytes: int | None


@dataclass(frozen=True)
class Hello:
    """What a server says of itself: what its features are made from, and how much it takes at once."""

    facts: dict[str, str]
    version: str
    batch_size: int
    replicas: int
    in_flight: int


def sample_of(slide: Slide) -> str | None:
    """What tells a local scan from another of the same name without reading it whole: SHA-256 over the sizes and sixteen
    evenly spaced pieces of each of its files. None for a scan that is not on a local disk.
    """
    files = slide.files
    if not files:
        return None
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(_pieces(path))
    return digest.hexdigest()


def _pieces(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as f:
        for i in range(_SAMPLES):
            f.seek(max(size - _SAMPLE_BYTES, 0) * i // (_SAMPLES - 1))
            digest.update(f.read(_SAMPLE_BYTES))
    return digest.digest()
