"""What runs on the cluster: replicas that hold the encoder, and a counter of what they did.

A replica reads the pixels of one request while it computes on another. It keeps nothing of a slide but its open file.
"""

import asyncio
import os
import uuid
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SlideError, StpathError
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.serving.messages import Block, Pixels, Places, Unreadable, sample_of
from stpath_assets.slides import Slide, open_slide
from stpath_assets.slides.scale import Mpp
from stpath_assets.tiles import Tiles
from stpath_assets.version import __version__


class EncoderReplica:
    """One replica. `choice` says which encoder it loads, `in_flight` how many requests a client may have with it at once,
    `counter` is the handle of `Counter`.
    """

    def __init__(self, choice: EncoderChoice, in_flight: int, counter: Any) -> None:
        self._id = uuid.uuid4().hex[:8]
        self._counter, self._in_flight = counter, in_flight
        self._encoder = choice.load()
        self._facts = choice.facts()
        self._encoding = Lock()
        counter.loaded.remote(self._id, os.getpid(), self._encoder.device)

    async def hello(self) -> dict[str, Any]:
        """What its features are made from, its version, the batch that suits its device, and `in_flight`."""
        batch_size = await asyncio.to_thread(lambda: self._encoder.batch_size)
        return {
            "facts": self._facts,
            "version": __version__,
            "batch_size": batch_size,
            "in_flight": self._in_flight,
        }

    async def embed(self, request: Places | Pixels) -> Block | Unreadable | StpathError:
        """Features of the tiles of a request, or why it has none. An error of the scan or of the encoder is an answer: what
        Ray makes of an exception is a page long.
        """
        return await asyncio.to_thread(self._embed, request)

    def _embed(self, request: Places | Pixels) -> Block | Unreadable | StpathError:
        try:
            batch = request.batch if isinstance(request, Pixels) else _read(request)
            if isinstance(batch, Unreadable):
                return batch
            with self._encoding:
                features = self._encoder.encode(batch)
        except StpathError as e:
            return e
        self._counter.embedded.remote(self._id, len(batch))
        memory = getattr(self._encoder, "gpu_memory_bytes", None)
        return Block(features, self._id, self._encoder.device, memory)


class Counter:
    """What each replica has done, by its id: model loads, batches and tiles. An actor of its own, so that what a replica
    that died has done is not forgotten.
    """

    def __init__(self) -> None:
        self._replicas: dict[str, dict[str, Any]] = {}

    def loaded(self, replica: str, pid: int, device: str) -> None:
        """A replica has loaded its model."""
        self._replicas[replica] = {"pid": pid, "device": device, "loads": 1, "batches": 0, "tiles": 0}

    def embedded(self, replica: str, tiles: int) -> None:
        """A replica has embedded a batch."""
        self._replicas[replica]["batches"] += 1
        self._replicas[replica]["tiles"] += tiles

    def counts(self) -> dict[str, dict[str, Any]]:
        """All that was counted."""
        return self._replicas


def _read(places: Places) -> npt.NDArray[np.uint8] | Unreadable:
    """The pixels of a request, or why the scan is not here. A scan that is here and damaged raises `SlideError`."""
    path = Path(places.uri)
    if not path.exists():
        return Unreadable("no such file there")
    try:
        # A file that was replaced is another one: nothing of the old one is to be taken for it.
        slide, sample = _open(places.uri, places.mpp_xy, path.stat().st_mtime_ns)
    except SlideError as e:
        return Unreadable(str(e))
    if sample != places.sample:
        return Unreadable("another file of that name is there")
    return next(Tiles(slide, places.table).batches(len(places.table)))


@lru_cache(maxsize=4)
def _open(uri: str, mpp_xy: Mpp, _mtime: int) -> tuple[Slide, str | None]:
    slide = open_slide(uri, mpp_xy)
    return slide, sample_of(slide)
