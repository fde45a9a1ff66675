"""Features by the warm encoder of a cluster: a slide's tiles over all replicas, results in order, no more at once than they take.

A replica that dies is answered for by its successor (`bridge`); a cluster that is lost is waited for, for a while, and what was
under way is sent again. Equal batches give equal bits, whoever computes them.
"""

import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from stpath_assets.errors import ServingError, StpathError
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import Block as Rows
from stpath_assets.features.serving.messages import Block, Hello, Pixels, Places, Unreadable, sample_of
from stpath_assets.features.throughput import Meter
from stpath_assets.slides import Slide
from stpath_assets.tiles import Tiles
from stpath_assets.version import __version__

RECOVER_S = 120.0
"""How long a cluster that was lost in mid-slide is waited for."""


class Lost(Exception):
    """The bridge is gone, and with it the connection to the cluster."""


class RayEmbedder:
    """The encoder that is served at a Ray address. `choice` is what the step expects to find there.

    Raises `ServingError` where there is none, or another one.
    """

    def __init__(self, address: str, choice: EncoderChoice, recover_s: float = RECOVER_S) -> None:
        self.meter = Meter("ray")
        self._address, self._choice, self._recover_s = address, choice, recover_s
        self._line: _Line | None = None
        self._numbers = 0

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._choice.name

    @property
    def batch_size(self) -> int:
        """How many tiles at once suit the server's device."""
        return self.hello().batch_size

    def facts(self) -> dict[str, str]:
        """What the server's features depend on beside the pixels."""
        return self.hello().facts

    def hello(self) -> Hello:
        """What the server says of itself; connects where no connection stands."""
        if self._line is None:
            line = _Line(self._address)
            _check(self._address, line.hello, self._choice)
            self._line = line
        return self._line.hello

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Rows]:
        """Features of the tiles from index `first` on, a block a batch, in table order."""
        hello = self.hello()
        self.meter = Meter("ray", batch_size)
        work = _Slide(tiles.slide, tiles.table.slice(first), batch_size)
        most = hello.replicas * hello.in_flight
        under_way: dict[int, int] = {}  # number of a request: its batch
        done: dict[int, Rows | StpathError] = {}
        sent = given = 0
        while given < len(work):
            while sent < len(work) and sent - given < most:
                self._ask(work, sent, under_way)
                sent += 1
            while given not in done:
                self._take(work, under_way, done)
            rows = done.pop(given)
            if isinstance(rows, StpathError):
                raise rows
            yield rows
            given += 1

    def _ask(self, work: "_Slide", batch: int, under_way: dict[int, int]) -> None:
        with self.meter.waiting():
            request = work.request(batch)
        self._numbers += 1
        under_way[self._numbers] = batch
        try:
            assert self._line is not None
            self._line.send(self._numbers, request)
        except Lost:
            self._recover(work, under_way)

    def _take(self, work: "_Slide", under_way: dict[int, int], done: dict[int, Rows | StpathError]) -> None:
        """Waits for one answer."""
        try:
            assert self._line is not None
            with self.meter.computing():
                number, answer = self._line.receive()
        except Lost:
            self._recover(work, under_way)
            return
        batch = under_way.pop(number, None)
        if batch is None:
            return  # of a stream that was left early
        if isinstance(answer, Unreadable):
            work.send_pixels()
            self._ask(work, batch, under_way)
        elif isinstance(answer, Block):
            done[batch] = answer.features
            self._note(answer)
        else:
            done[batch] = (
                answer  # raised in its turn: of several, the first of the slide is named, as without a cluster
            )

    def _note(self, block: Block) -> None:
        self.meter.devices.append(f"{block.device} ({block.replica})")
        if block.gpu_memory_bytes is not None:
            self.meter.gpu_memory_bytes = max(self.meter.gpu_memory_bytes or 0, block.gpu_memory_bytes)

    def _recover(self, work: "_Slide", under_way: dict[int, int]) -> None:
        """Connects again and sends what was under way once more. Raises `ServingError` where that takes too long."""
        self._line = None
        deadline = time.monotonic() + self._recover_s
        while True:
            try:
                self.hello()
                break
            except ServingError as e:
                if "is not the one" in str(e) or time.monotonic() > deadline:
                    raise ServingError(f"{work.name}: lost the encoder in mid-slide; what is done is kept. {e}") from e
                time.sleep(1)
        again = list(under_way.values())
        under_way.clear()
        for batch in again:
            self._ask(work, batch, under_way)


@dataclass
class _Slide:
    """The batches of one slide's tiles, as places until a replica wants pixels."""

    slide: Slide
    table: pa.Table
    batch_size: int

    def __post_init__(self) -> None:
        self.name = self.slide.name
        self._sample = sample_of(self.slide)

    def __len__(self) -> int:
        return -(-len(self.table) // self.batch_size)

    def send_pixels(self) -> None:
        """From now on, since a replica cannot read the scan."""
        self._sample = None

    def request(self, batch: int) -> Places | Pixels:
        """What is sent for a batch."""
        rows = self.table.slice(batch * self.batch_size, self.batch_size)
        if self._sample is None:
            return Pixels(next(Tiles(self.slide, rows).batches(len(rows))))
        # A slice is sent with all of its table; a copy is not.
        return Places(
            str(self.slide.files[0].absolute()), self.slide.mpp_xy, self._sample, rows.take(list(range(len(rows))))
        )


class _Line:
    """A bridge process and the pipes to it. `hello` is what the server said."""

    def __init__(self, address: str) -> None:
        requests_in, requests_out = os.pipe()
        answers_in, answers_out = os.pipe()
        command = [
            sys.executable,
            "-m",
            "stpath_assets.features.serving.bridge",
            address,
            str(requests_in),
            str(answers_out),
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(requests_in, answers_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(requests_in)
        os.close(answers_out)
        self._out = Connection(requests_out, readable=False)
        self._in = Connection(answers_in, writable=False)
        self._end = weakref.finalize(self, _close, self._out, self._in, self._process)
        try:
            what, hello = self.receive()
        except Lost as e:
            raise ServingError(f"the Ray cluster at {address} was lost while connecting; see Ray's logs") from e
        if what == "fatal":
            self._end()
            raise hello
        self.hello: Hello = hello

    def send(self, number: int, request: Any) -> None:
        """Raises `Lost` where the bridge is gone."""
        try:
            self._out.send((number, request))
        except OSError as e:
            raise Lost from e

    def receive(self) -> tuple[Any, Any]:
        """The next answer and its number. Raises `Lost` where the bridge is gone."""
        try:
            what, value = self._in.recv()
        except (EOFError, OSError) as e:
            raise Lost from e
        return what, value


def _close(out: Connection, incoming: Connection, process: "subprocess.Popen[bytes]") -> None:
    out.close()  # the bridge ends by itself when it can read no more
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    incoming.close()


def _check(address: str, hello: Hello, choice: EncoderChoice) -> None:
    """Raises `ServingError` where the server is not what the step expects."""
    expected = {"encoder": choice.name, "encoder_code": choice.code_version}
    if choice.precision != "auto":
        expected["encoder_precision"] = choice.precision
    if choice.path is not None:
        expected["encoder_weights_sha256"] = choice.weights_sha256()
    found = {**hello.facts, "version": hello.version}
    for name, wanted in {"version": __version__, **expected}.items():
        if found.get(name) != wanted:
            raise ServingError(
                f"the encoder served at {address} is not the one asked for: its {name} is {found.get(name)}, "
                f"here it is {wanted}; serve the right one: stpath-assets gigapath serve, or change the settings here"
            )
