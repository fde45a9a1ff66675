"""Computes features in this process: pixels are read ahead while the encoder computes.

`Embedder` is the interface for computing a slide's features, here or on a cluster (`serving`). Both use the same batches, and
so give the same bits.
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
    """Computes features. `name` is the encoder's name; `meter` measures the last stream."""

    meter: Meter

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def facts(self) -> dict[str, str]:
        """Return what features depend on besides the pixels (`EncoderChoice.facts`)."""
        ...

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Block]:
        """Yield the features of the tiles from index `first` on, (B, dim) float32 per batch, in table order.

        Closing the iterator stops the work.
        """
        ...


@dataclass
class LocalEmbedder:
    """An encoder in this process, loaded when the first feature is needed."""

    choice: EncoderChoice
    meter: Meter = field(default_factory=Meter)

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.choice.name

    @property
    def batch_size(self) -> int:
        """The batch size that suits the device. Loads the encoder."""
        return self.choice.load().batch_size

    def facts(self) -> dict[str, str]:
        """Return what features depend on besides the pixels."""
        return self.choice.facts()

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Block]:
        """Yield the features of the tiles from index `first` on, one block per batch, in table order."""
        encoder = self.choice.load()
        self.meter = Meter("local", batch_size, devices=[encoder.device])
        yield from encode_tiles(encoder, tiles, first, batch_size, self.meter)


def encode_tiles(encoder: Encoder, tiles: Tiles, first: int, batch_size: int, meter: Meter) -> Iterator[Block]:
    """Read tiles ahead and encode them, one block per batch."""
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
