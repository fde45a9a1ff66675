"""What computing a slide's features cost: tiles a second, what was waited for, memory and device.

Measured beside the features and stored in a table of its own, so that equal features stay equal bytes whatever they took.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from stpath_assets.tables import GIGAPATH_THROUGHPUT


@dataclass
class Meter:
    """Filled by who computes features. `waiting_s`: seconds in which nothing was computed for want of pixels;
    `computing_s`: in the encoder, or until a server's answer came. `devices`: what computed; `gpu_memory_bytes` the most that
    was allocated on one, None without a GPU. `via` says `local` or `ray`.
    """

    via: str = "local"
    batch_size: int = 0
    tiles: int = 0
    resumed_tiles: int = 0
    seconds: float = 0.0
    waiting_s: float = 0.0
    computing_s: float = 0.0
    devices: list[str] = field(default_factory=list)
    gpu_memory_bytes: int | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of the block as waiting for pixels."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waiting_s += time.perf_counter() - began

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Counts the time of the block as computing."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.computing_s += time.perf_counter() - began

    def to_table(self, slide_id: str, encoder: str, precision: str) -> pa.Table:
        """The row of `gigapath_throughput`."""
        row = {
            "slide_id": slide_id,
            "encoder": encoder,
            "precision": precision,
            "device": ", ".join(dict.fromkeys(self.devices)),
            "via": self.via,
            "batch_size": self.batch_size,
            "tiles": self.tiles,
            "resumed_tiles": self.resumed_tiles,
            "seconds": self.seconds,
            "tiles_per_s": self.tiles / self.seconds if self.seconds else 0.0,
            "waiting_s": self.waiting_s,
            "computing_s": self.computing_s,
            "peak_rss_bytes": peak_rss_bytes(),
            "gpu_memory_bytes": self.gpu_memory_bytes,
            "finished_at": datetime.now(UTC),
        }
        return pa.Table.from_pylist([row], schema=GIGAPATH_THROUGHPUT.schema)


def peak_rss_bytes() -> int:
    """The most memory that this process has had resident, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
