"""Features computed in this process: pixels are read ahead while the encoder computes.

`Embedder` is what computes features of a slide's tiles, here or on a cluster (`serving`), in the same batches and so with the
same bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stpath_assets.features.encoders import Encoder, EncoderChoice
from stpath_assets.features.throughput import Meter
from stpath_assets.threads import prefetch
from stpath_assets.tiles import Tiles

Block = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Computes features. `name` is the encoder's; `meter` says what the last stream cost."""

    meter: Meter

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def facts(self) -> dict[str, str]:
        """What features depend on beside the pixels (`EncoderChoice.facts`)."""
        ...

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Block]:
        """Features of the tiles from index `first` on, (B, dim) float32 a batch, in table order. Closing the iterator ends
        the work.
        """
        ...


@dataclass
class LocalEmbedder:
    """An encoder in this process, loaded when the first feature is asked for."""

    choice: EncoderChoice
    meter: Meter = field(default_factory=Meter)

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.choice.name

    @property
    def batch_size(self) -> int:
        """How many tiles at once suit the device; loads the encoder."""
        return self.choice.load().batch_size

    def facts(self) -> dict[str, str]:
        """What features depend on beside the pixels."""
        return self.choice.facts()

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Block]:
        """Features of the tiles from index `first` on, a block a batch, in table order."""
        encoder = self.choice.load()
        self.meter = Meter("local", batch_size, devices=[encoder.device])
        yield from encoded(encoder, tiles, first, batch_size, self.meter)


def encoded(encoder: Encoder, tiles: Tiles, first: int, batch_size: int, meter: Meter) -> Iterator[Block]:
    """Reads tiles ahead and encodes them, a block a batch."""
    rest = replace(tiles, table=tiles.table.slice(first))
    batches = prefetch(rest.batches(batch_size) if len(rest) else iter(()))
    while True:
        with meter.waiting():
            batch = next(batches, None)
        if batch is None:
            break
        with meter.computing():
            block = encoder.encode(batch)
        yield block
    meter.gpu_memory_bytes = getattr(encoder, "gpu_memory_bytes", None)
