"""Runs on the cluster: replicas that hold the encoder and answer over HTTP, and a counter of what they did.

A replica reads the pixels of one request while it computes another. Of a slide, it keeps only the open file. Statuses are those
of `messages`; no exception of a request may escape, because Ray Serve would turn it into a 500.
"""

import asyncio
import logging
import os
import uuid
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stpath_assets.errors import SlideError, StpathError, one_line
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.serving.messages import (
    Block,
    Hello,
    MessageError,
    Pixels,
    Places,
    Status,
    limit_of,
    sample_of,
    tiles_from_http,
)
from stpath_assets.features.serving.token import is_allowed
from stpath_assets.slides import Slide, open_slide
from stpath_assets.slides.scale import Mpp
from stpath_assets.tiles import Tiles
from stpath_assets.version import __version__

_log = logging.getLogger("ray.serve")


class Unreadable(Exception):
    """The replica does not have this scan, and wants pixels."""


class EncoderReplica:
    """One replica.

    `choice` is the encoder to load, `replicas` the number of replicas, `in_flight` how many requests a client may send to each at
    once, `token_sha256` the digest of the token, `counter` the handle of `Counter`.
    """

    def __init__(self, choice: EncoderChoice, replicas: int, in_flight: int, token_sha256: str, counter: Any) -> None:
        self._id = uuid.uuid4().hex[:8]
        self._counter, self._token_sha256 = counter, token_sha256
        self._encoder = choice.load()
        self._hello = Hello(choice.facts(), __version__, self._encoder.batch_size, replicas, in_flight)
        self._encoding = Lock()
        counter.loaded.remote(self._id, os.getpid(), self._encoder.device)

    async def __call__(self, request: Request) -> Response:
        """Answer a request. The body is not read before the token is checked."""
        if not is_allowed(request.headers.get("authorization"), self._token_sha256):
            return _error(Status.REFUSED, "no token, or another one than the server's")
        try:
            return await self._answer(request)
        except MessageError as e:
            return _error(e.status, str(e))
        except Unreadable as e:
            return _error(Status.SEND_PIXELS, str(e))
        except SlideError as e:
            return _error(Status.DAMAGED, str(e))
        except StpathError as e:
            return _error(Status.FAILED, str(e))
        except Exception as e:
            _log.exception("a request failed")
            said = f"the served encoder failed ({type(e).__name__}: {str(e)[-200:]}); see Ray's logs"
            return _error(Status.FAILED, said)

    async def _answer(self, request: Request) -> Response:
        match request.method, request.scope["path"].rsplit("/", 1)[-1]:
            case "GET", "hello":
                return JSONResponse(self._hello.to_json())
            case "GET", "counts":
                return JSONResponse(await self._counter.counts.remote())
            case "POST", "embed":
                return await self._embed(request)
        raise MessageError(f"unknown request {request.method} {request.scope['path']}")

    async def _embed(self, request: Request) -> Response:
        if request.headers.get("x-encoder") != self._hello.identity:
            return _error(Status.ANOTHER_ENCODER, "another encoder is served")
        tiles = tiles_from_http(request.headers, await _body(request))
        headers, body = (await asyncio.to_thread(self._features, tiles)).to_http()
        return Response(body, Status.OK, headers, "application/octet-stream")

    def _features(self, tiles: Places | Pixels) -> Block:
        batch = tiles.batch if isinstance(tiles, Pixels) else _read(tiles)
        with self._encoding:
            features = self._encoder.encode(batch)
        self._counter.embedded.remote(self._id, len(batch))
        return Block(features, self._id, self._encoder.device, getattr(self._encoder, "gpu_memory_bytes", None))


class Counter:
    """What each replica has done, by its id: model loads, batches and tiles. A separate actor, so that the counts of a dead
    replica are kept.
    """

    def __init__(self) -> None:
        self._replicas: dict[str, dict[str, Any]] = {}

    def loaded(self, replica: str, pid: int, device: str) -> None:
        """Record that a replica has loaded its model."""
        self._replicas[replica] = {"pid": pid, "device": device, "loads": 1, "batches": 0, "tiles": 0}

    def embedded(self, replica: str, tiles: int) -> None:
        """Record that a replica has embedded a batch."""
        self._replicas[replica]["batches"] += 1
        self._replicas[replica]["tiles"] += tiles

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return all counts."""
        return self._replicas


def _error(status: Status, said: str) -> Response:
    return JSONResponse({"error": one_line(said)}, status)


async def _body(request: Request) -> bytes:
    """Return the body, reading no more bytes than a batch can have."""
    body, limit = bytearray(), limit_of(request.headers.get("content-type"))
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise MessageError(f"more than {limit} bytes; lower the batch size", Status.TOO_LARGE)
    return bytes(body)


def _read(places: Places) -> npt.NDArray[np.uint8]:
    """Read the pixels of a request. Raises `Unreadable` if the scan is not here, `SlideError` if it is here but damaged."""
    path = Path(places.uri)
    if not path.is_file():
        raise Unreadable("no such file there")
    try:
        # With the modification time: a replaced file is another scan, and must not use the cached one.
        slide, sample = _open(places.uri, places.mpp_xy, path.stat().st_mtime_ns)
    except SlideError as e:
        raise Unreadable(str(e)) from e
    if sample != places.sample:
        raise Unreadable("another file of that name is there")
    return next(Tiles(slide, places.table).batches(len(places.table)))


@lru_cache(maxsize=4)
def _open(uri: str, mpp_xy: Mpp, _mtime: int) -> tuple[Slide, str | None]:
    slide = open_slide(uri, mpp_xy)
    return slide, sample_of(slide)
