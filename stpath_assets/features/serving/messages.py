"""The HTTP protocol between steps and replicas, under `/stpath-encoder`.

    GET  hello    describes the server, JSON of `Hello`
    GET  counts   what each replica has done, JSON
    POST embed    tiles, as `Places` or `Pixels`; answers with their features, float32, little-endian, row after row

Every request carries the token. If the replica can read the same scan, tiles are sent as coordinates: an Arrow stream with the
scan in the schema's metadata. Otherwise they are sent as pixels, tile after tile. Nothing is pickled. The status of an answer
says what to do; the error text is in its JSON, `{"error": …}`:

    200           success
    400  413      malformed, or larger than any batch: a bug in this program
    401           no token, or a wrong one
    404           no encoder is served there (answered by Ray Serve)
    409           the replica cannot read the scan: send pixels
    412           not the encoder that said hello
    422           the scan is damaged: the error is that of a run without a server
    424           the encoder failed
    500 502-504   a replica died or is not ready (answered by Ray Serve, or by a proxy in front of it): retry
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.slides import Slide
from stpath_assets.slides.scale import Mpp
from stpath_assets.tables import TILE_GRIDS

PREFIX = "/stpath-encoder"

MAX_BYTES = 1 << 30
"""Maximum bytes of a batch's pixels, sent or read. A batch of 4096 tiles, the largest that settings allow, has 0.6 GB."""

MAX_PLACES_BYTES = 1 << 24
"""Maximum bytes of a batch's coordinates; each tile has about fifty."""

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
_PLACES, _PIXELS = "application/vnd.apache.arrow.stream", "application/octet-stream"
_FLOAT = np.dtype("<f4")
_COLUMNS = {name: TILE_GRIDS.schema.field(name).type for name in ("tile_id", "x_px", "y_px", "side_px", "tile_px")}
_ALSO = {"side_y_px": TILE_GRIDS.schema.field("side_y_px").type}


class Status(IntEnum):
    """The statuses of replicas, and Ray Serve's for a missing application."""

    OK = 200
    MALFORMED = 400
    REFUSED = 401
    NOT_SERVED = 404
    SEND_PIXELS = 409
    ANOTHER_ENCODER = 412
    TOO_LARGE = 413
    DAMAGED = 422
    FAILED = 424


SEND_AGAIN = frozenset({500, 502, 503, 504})


class MessageError(ValueError):
    """A malformed message. `status` is the server's answer."""

    def __init__(self, said: str, status: Status = Status.MALFORMED) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True)
class Places:
    """Tiles of a scan that the replica reads itself.

    `table` has at least one row and columns of `tile_grids`; only the columns with places and sizes are sent.
    """

    uri: str
    mpp_xy: Mpp
    sample: str
    table: pa.Table

    def to_http(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body."""
        scan = {"uri": self.uri, "mpp_xy": json.dumps(self.mpp_xy), "sample": self.sample}
        names = [name for name in {**_COLUMNS, **_ALSO} if name in self.table.column_names]
        table = self.table.select(names).replace_schema_metadata(scan)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {"content-type": _PLACES}, sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Pixels:
    """Tiles as (B, side, side, 3) uint8."""

    batch: npt.NDArray[np.uint8]

    def to_http(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body."""
        return {"content-type": _PIXELS, "x-tile-px": str(self.batch.shape[1])}, self.batch.tobytes()


@dataclass(frozen=True)
class Block:
    """Features of one request, (B, dim) float32; `replica` made them on `device`."""

    features: npt.NDArray[np.float32]
    replica: str
    device: str
    gpu_memory_bytes: int | None

    def to_http(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body."""
        headers = {"x-rows": str(len(self.features)), "x-replica": self.replica, "x-device": self.device}
        if self.gpu_memory_bytes is not None:
            headers["x-gpu-memory-bytes"] = str(self.gpu_memory_bytes)
        return headers, self.features.astype(_FLOAT, copy=False).tobytes()

    @classmethod
    def from_http(cls, headers: Mapping[str, str], body: bytes) -> "Block":
        """Parse an answer. Raises `KeyError` or `ValueError` if it is malformed."""
        features = np.frombuffer(body, _FLOAT).reshape(int(headers["x-rows"]), -1).astype(np.float32)
        memory = headers.get("x-gpu-memory-bytes")
        return cls(features, headers["x-replica"], headers["x-device"], None if memory is None else int(memory))


@dataclass(frozen=True)
class Hello:
    """A server's description of itself: what its features depend on, and how much it takes at once."""

    facts: dict[str, str]
    version: str
    batch_size: int
    replicas: int
    in_flight: int

    @property
    def identity(self) -> str:
        """A digest that is equal for servers with equal features. Every request of a step names it."""
        return hashlib.sha256(json.dumps([self.facts, self.version], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the message as JSON values."""
        return asdict(self)


def limit_of(kind: str | None) -> int:
    """Return the maximum bytes of a body with this content type."""
    return MAX_PLACES_BYTES if kind == _PLACES else MAX_BYTES


def tiles_from_http(headers: Mapping[str, str], body: bytes) -> Places | Pixels:
    """Parse a step's request. Raises `MessageError` if it is malformed."""
    kind = headers.get("content-type")
    if kind == _PLACES:
        return _places(body)
    if kind == _PIXELS:
        return _pixels(headers.get("x-tile-px", ""), body)
    raise MessageError(f"content-type is neither {_PLACES} nor {_PIXELS}")


def _places(body: bytes) -> Places:
    try:
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
        said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        x, y = map(float, json.loads(said["mpp_xy"]))
        uri, sample = said["uri"], said["sample"]
        if {field.name: field.type for field in table.schema} not in (_COLUMNS, {**_COLUMNS, **_ALSO}):
            raise ValueError("columns are not those of tile_grids")
        sides = table["tile_px"].to_numpy()
        if not len(sides) or sides.min() < 1 or (sides != sides[0]).any():
            raise ValueError("no tiles, or none of one size")
    except Exception as e:  # for malformed streams Arrow raises many kinds of errors, even OSError
        raise MessageError(f"not places of tiles ({type(e).__name__}: {e})") from e
    if len(sides) * int(sides[0]) ** 2 * 3 > MAX_BYTES:
        raise MessageError("more pixels than a batch has; lower the batch size", Status.TOO_LARGE)
    return Places(uri, (x, y), sample, table)


def _pixels(side: str, body: bytes) -> Pixels:
    if not side.isascii() or not side.isdigit() or not 0 < int(side[:9]) < 1 << 15:
        raise MessageError("x-tile-px is not the side of a tile")
    px = int(side)
    if not body or len(body) % (px * px * 3):
        raise MessageError(f"{len(body)} bytes are not whole tiles of {px} px")
    return Pixels(np.frombuffer(body, np.uint8).reshape(-1, px, px, 3))


def sample_of(slide: Slide) -> str | None:
    """Return a digest that tells a local scan from another of the same name without reading it whole.

    It is the SHA-256 of the sizes and of sixteen evenly spaced pieces of each of its files. None for a scan that is not on a
    local disk.
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
