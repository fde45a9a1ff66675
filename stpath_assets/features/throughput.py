"""Measures the computation of a slide's features: tiles per second, waiting time, memory and device.

The figures have a table of their own, so that equal features stay equal bytes.
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
    """Measurements of one computation of features.

    `waiting_s`: seconds in which nothing was computed because pixels were missing. `computing_s`: seconds in the encoder, or
    until a server answered. `devices`: what computed. `gpu_memory_bytes`: peak allocation on one GPU, None without a GPU.
    `via`: `local` or `ray`.
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
        """Count the time of the block as waiting for pixels."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.waiting_s += time.perf_counter() - began

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time of the block as computing."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.computing_s += time.perf_counter() - began

    def to_table(self, slide_id: str, encoder: str, precision: str) -> pa.Table:
        """Return the row of `gigapath_throughput`."""
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
    """Return the peak resident memory of this process, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
