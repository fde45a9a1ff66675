"""Computes features on the served encoder: spreads a slide's batches over all replicas, and returns results in order.

Each batch is a request in its own thread, and no more are sent at once than the replicas take. If a replica dies or the server
goes away, the request is retried once the server answers again, up to `RECOVER_S`; the HTTP status says which failures these
are (`messages`). Equal batches give equal bits on every replica. Ray is not needed here.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

import httpx
import pyarrow as pa

from stpath_assets.errors import EncoderMismatchError, FeatureError, ServingError, SlideError, one_line
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import Block as Rows
from stpath_assets.features.serving.messages import (
    PREFIX,
    SEND_AGAIN,
    Block,
    Hello,
    Pixels,
    Places,
    Status,
    sample_of,
)
from stpath_assets.features.throughput import Meter
from stpath_assets.slides import Slide
from stpath_assets.tiles import Tiles
from stpath_assets.version import __version__

RECOVER_S = 120.0
"""How long to wait for a server that was lost in the middle of a slide."""

LOADING_S = 600.0
"""How long a server may take to say hello. It may have to load the encoder, or finish batches of other steps."""

_CONNECT_S = 5.0
_PAUSE_S = 0.5
_TRIES = 5  # of a request that kills its replicas
_SERVE = "start it: stpath-assets gigapath serve"


class UnavailableError(ServingError):
    """The server does not answer at the moment, and may come back."""

    may_pass = True


class ServedEmbedder:
    """The encoder served at a URL. `choice` is the encoder that the step expects there.

    Raises `ServingError` if there is none, `EncoderMismatchError` if it is another one.
    """

    def __init__(self, url: str, token: str | None, choice: EncoderChoice, recover_s: float = RECOVER_S) -> None:
        self.meter = Meter("ray")
        self._server, self._choice, self._recover_s = Server(url, token), choice, recover_s
        self._hello: Hello | None = None

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._choice.name

    @property
    def batch_size(self) -> int:
        """The batch size that suits the server's device."""
        return self.hello().batch_size

    def facts(self) -> dict[str, str]:
        """Return what the server's features depend on besides the pixels."""
        return self.hello().facts

    def hello(self) -> Hello:
        """Return the server's description. It is asked once, because each request names the encoder that it expects."""
        if self._hello is None:
            self._hello = self._greet()
        return self._hello

    def stream(self, tiles: Tiles, first: int, batch_size: int) -> Iterator[Rows]:
        """Yield the features of the tiles from index `first` on, one block per batch, in table order."""
        hello = self.hello()
        self.meter = Meter("ray", batch_size)
        work = _Slide(tiles.slide, tiles.table.slice(first), batch_size, hello, threading.Event())
        under_way: deque[tuple[int, Future[Block | None]]] = deque()
        try:
            for batch in range(len(work)):
                if len(under_way) == hello.replicas * hello.in_flight:
                    yield self._take(work, *under_way.popleft())
                under_way.append((batch, self._ask(work, batch)))
            while under_way:
                yield self._take(work, *under_way.popleft())
        finally:
            work.closed.set()

    def _ask(self, work: "_Slide", batch: int) -> "Future[Block | None]":
        with self.meter.waiting():
            # Written here, not in the thread: a thread that is within Arrow when Python ends aborts the process.
            headers, body = work.request(batch).to_http()
        return _in_thread(lambda: self._send(work, headers, body))

    def _take(self, work: "_Slide", batch: int, answer: "Future[Block | None]") -> Rows:
        """Wait for the features of a batch. Raises the error of the request, if it failed."""
        with self.meter.computing():
            block = _wait_for(answer)
        if block is None:
            work.send_pixels()
            again = self._ask(work, batch)
            with self.meter.computing():
                block = _wait_for(again)
        assert block is not None, "pixels were refused as unreadable"
        self.meter.devices.append(f"{block.device} ({block.replica})")
        if block.gpu_memory_bytes is not None:
            self.meter.gpu_memory_bytes = max(self.meter.gpu_memory_bytes or 0, block.gpu_memory_bytes)
        return block.features

    def _send(self, work: "_Slide", headers: dict[str, str], body: bytes) -> Block | None:
        """Return the features of a batch, or None if the replica wants pixels."""
        for _ in range(_TRIES):
            try:
                return self._server.embed({**headers, "x-encoder": work.hello.identity}, body)
            except UnavailableError as e:
                last = e
                self._wait_until_back(work)
            except EncoderMismatchError:
                self._hello = None
                raise
        raise FeatureError(
            f"the served encoder died {_TRIES} times at the same tiles; see Ray's logs, or lower the batch size ({last})"
        )

    def _wait_until_back(self, work: "_Slide") -> None:
        """Wait until the server says hello. Raises `ServingError` if that takes too long, or another encoder answers."""
        deadline = time.monotonic() + self._recover_s
        while not work.closed.wait(_PAUSE_S):
            try:
                self._greet()
                return
            except ServingError as e:
                if not isinstance(e, UnavailableError) or time.monotonic() > deadline:
                    said = f"{work.slide.name}: lost the encoder in mid-slide; what is done is kept. {e}"
                    raise type(e)(said) from e
        raise CancelledError

    def _greet(self) -> Hello:
        hello = self._server.hello()
        _check(self._server.url, hello, self._choice)
        return hello


class Server:
    """The HTTP side of a served encoder. Safe for several threads."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self._has_token = url.rstrip("/"), token is not None
        try:
            base_url = httpx.URL(self.url + PREFIX)
        except httpx.InvalidURL as e:
            raise ServingError(f"{url} is no URL ({e}); check STPATH_ENCODER_URL") from e
        # A machine that went down sends nothing. With keepalive, the connection fails after half a minute.
        keep_alive = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):  # not all on every system
                keep_alive.append((socket.IPPROTO_TCP, getattr(socket, name), value))
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            # A transport of our own, so that tiles and token never go through a proxy named in the environment.
            transport=httpx.HTTPTransport(
                verify=url.startswith("https:"), limits=httpx.Limits(), socket_options=keep_alive
            ),
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
        )

    def hello(self) -> Hello:
        """Return the server's description. Raises `UnavailableError`, or `ServingError` if waiting would not help."""
        said = self._get("/hello")
        try:
            return Hello(**said)
        except TypeError as e:
            raise self._stranger("answers something else") from e

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return what each replica has done since the encoder was deployed: pid, device, loads, batches, tiles, by its id."""
        found: dict[str, dict[str, Any]] = self._get("/counts")
        return found

    def embed(self, headers: dict[str, str], body: bytes) -> Block | None:
        """Return the features of the tiles of a request, or None if the replica wants pixels.

        Raises `UnavailableError` if the request may be retried, `SlideError` and `FeatureError` as a run without a server does,
        and `ServingError` otherwise.
        """
        answer = self._request("POST", "/embed", headers=headers, content=body)
        match answer.status_code:
            case Status.SEND_PIXELS:
                return None
            case Status.DAMAGED:
                raise SlideError(_error_of(answer))
            case Status.FAILED:
                raise FeatureError(_error_of(answer))
            case Status.ANOTHER_ENCODER:
                raise EncoderMismatchError(f"{self.url} now serves another encoder than at the start; run again")
        self._require_ok(answer)
        try:
            return Block.from_http(answer.headers, answer.content)
        except (KeyError, ValueError) as e:
            raise self._stranger("answers something else") from e

    def _get(self, path: str) -> Any:
        # One retry: if a replica dies at this moment, another one answers.
        for last in range(_TRIES - 1, -1, -1):
            answer = self._request("GET", path, timeout=httpx.Timeout(LOADING_S, connect=_CONNECT_S))
            if answer.status_code not in SEND_AGAIN or not last:
                break
            time.sleep(_PAUSE_S)
        self._require_ok(answer)
        try:
            return answer.json()
        except ValueError as e:
            raise self._stranger("answers something else") from e

    def _request(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **given)
        except httpx.RequestError as e:
            raise UnavailableError(f"no encoder answers at {self.url} ({type(e).__name__}: {e}); {_SERVE}") from e

    def _require_ok(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status == Status.OK:
            return
        if status == Status.REFUSED:
            how = "gives another token than the server's" if self._has_token else "gives no token"
            raise ServingError(
                f"the encoder at {self.url} refuses this step, which {how}; "
                "set STPATH_ENCODER_TOKEN or STPATH_ENCODER_TOKEN_FILE to that of stpath-assets gigapath serve"
            )
        if status == Status.NOT_SERVED:
            raise UnavailableError(f"no encoder is served at {self.url}; {_SERVE}")
        if status in SEND_AGAIN:
            raise UnavailableError(
                f"the encoder at {self.url} has no replica that answers (HTTP {status}); see Ray's logs"
            )
        if status in (Status.MALFORMED, Status.TOO_LARGE):
            raise ServingError(f"the encoder at {self.url} refuses the request (HTTP {status}): {_error_of(answer)}")
        raise self._stranger(f"answers HTTP {status}")

    def _stranger(self, does: str) -> ServingError:
        return ServingError(f"{self.url} is not a served encoder: it {does}; check STPATH_ENCODER_URL, or {_SERVE}")


@dataclass
class _Slide:
    """The batches of one slide's tiles, sent as coordinates until a replica wants pixels. `closed` ends waiting."""

    slide: Slide
    table: pa.Table
    batch_size: int
    hello: Hello
    closed: threading.Event

    def __post_init__(self) -> None:
        self._sample = sample_of(self.slide)

    def __len__(self) -> int:
        return -(-len(self.table) // self.batch_size)

    def send_pixels(self) -> None:
        """Send pixels from now on, because a replica cannot read the scan."""
        self._sample = None

    def request(self, batch: int) -> Places | Pixels:
        """Return the request of a batch."""
        rows = self.table.slice(batch * self.batch_size, self.batch_size)
        if self._sample is None:
            return Pixels(next(Tiles(self.slide, rows).batches(len(rows))))
        return Places(str(self.slide.files[0].absolute()), self.slide.mpp_xy, self._sample, rows)


def _in_thread(work: Callable[[], Block | None]) -> "Future[Block | None]":
    """Run `work` in a daemon thread, which does not delay the end of the process, and return its result as a future."""
    future: Future[Block | None] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as e:
            future.set_exception(e)

    threading.Thread(target=run, name="stpath-encoder", daemon=True).start()
    return future


def _wait_for(answer: "Future[Block | None]") -> Block | None:
    """Return a request's result. Looks up now and then: an interrupt that comes just before Python waits for a lock would
    otherwise be seen only when the lock is free.
    """
    while not answer.done():
        wait([answer], timeout=_PAUSE_S)
    return answer.result()


def _error_of(answer: httpx.Response) -> str:
    try:
        return one_line(str(answer.json()["error"]))
    except (ValueError, KeyError, TypeError):
        return one_line(answer.text[:200])


def _check(url: str, hello: Hello, choice: EncoderChoice) -> None:
    """Raise `EncoderMismatchError` if the server is not the one that the step expects."""
    expected = {"version": __version__, "encoder": choice.name, "encoder_code": choice.code_version}
    if choice.precision != "auto":
        expected["encoder_precision"] = choice.precision
    if choice.path is not None:
        expected["encoder_weights_sha256"] = choice.weights_sha256()
    found = {**hello.facts, "version": hello.version}
    for name, wanted in expected.items():
        if found.get(name) != wanted:
            raise EncoderMismatchError(
                f"the encoder served at {url} is not the one asked for: its {name} is {found.get(name)}, "
                f"here it is {wanted}; serve the right one: stpath-assets gigapath serve, or change the settings here"
            )
