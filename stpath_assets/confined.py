"""Runs a function of this package in a child process that has limits of time and memory and can be killed.

Parsers of files that came from outside may loop for ever, take all memory or crash in C. Here, that ends the child, and is an
error of one line. The child answers in JSON, so that nothing that it says is executed; arrays go through files. It is no sandbox
against malicious machine code: it runs as the same user.

Which function reads which file belongs with its format. A child serves later calls as well, one at a time.
"""

import atexit
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stpath_assets import errors
from stpath_assets.errors import StpathError, describe
from stpath_assets.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_LONGEST_ANSWER = 64 * 2**20


@dataclass(frozen=True)
class Limits:
    """What a child may take: seconds for one call, and bytes of memory of its own beside shared libraries."""

    seconds: float
    memory_bytes: int

    @classmethod
    def of_environment(cls) -> "Limits":
        """Return the limits of `STPATH_OPEN_SECONDS` and `STPATH_OPEN_MEMORY_GB`, or the default ones."""
        settings = Settings(**dict[str, Any]())
        return cls(settings.open_seconds, int(settings.open_memory_gb * 2**30))


class Refused(StpathError):
    """A file whose reader was stopped by a limit or crashed."""


def confined(
    function: Callable[..., Any],
    *args: Any,
    name: str,
    error: type[StpathError] = Refused,
    in_new_child: bool = False,
) -> Any:
    """Return `function(*args)`, computed in a child. Function, arguments and result must be expressible in JSON.

    The function is one of a module of this package. `in_new_child` is for one that leaves something behind in its process, such
    as connections. Its `StpathError` is raised here with the same class and text. Raises `error`, one line that begins with
    `name`, if the child exceeded a limit or crashed. Another exception is a bug, and raised as `RuntimeError` with its text.
    """
    limits = Limits.of_environment()
    request = json.dumps([f"{function.__module__}:{function.__qualname__}", args, dict(os.environ)], default=str)
    child = _children.take(limits, in_new_child)
    answer, why = child.ask(request, limits.seconds)
    if answer is None and child.served and not child.is_late:
        # It may have been killed while it waited, or have been hurt by an earlier file.
        child.end()
        child = _children.take(limits, new=True)
        answer, why = child.ask(request, limits.seconds)
    if answer is None or "is_memory" in answer:
        child.end()
        if child.is_late:
            limit = "STPATH_OPEN_SECONDS"
        elif answer is not None:
            why = f"it takes more than {limits.memory_bytes / 2**30:g} GB of memory to open"
            limit = "STPATH_OPEN_MEMORY_GB"
        else:
            raise error(f"{name}: {why}; it is damaged or made to harm, copy or export it again")
        raise error(
            f"{name}: {why}; it is damaged, or larger than {limit} allows: copy or export it again, or raise that"
        )
    if in_new_child:
        child.end()
    else:
        _children.give_back(child)
    if "value" in answer:
        return answer["value"]
    raise _raised(answer)


def confined_arrays(
    function: Callable[..., Any], *args: Any, name: str, error: type[StpathError] = Refused
) -> "tuple[Any, dict[str, npt.NDArray[Any]]]":
    """Return what `confined` returns for `function(*args, folder)`, and the arrays that it handed over in the folder."""
    import numpy as np

    with TemporaryDirectory(prefix="stpath-") as folder:
        said = confined(function, *args, folder, name=name, error=error)
        return said, {p.stem: np.load(p, allow_pickle=False) for p in Path(folder).glob("*.npy")}


def hand_over(folder: str, **arrays: "npt.NDArray[Any]") -> None:
    """Write arrays for the parent, in a function that `confined_arrays` runs."""
    import numpy as np

    for name, array in arrays.items():
        np.save(Path(folder) / f"{name}.npy", array, allow_pickle=False)


def _raised(answer: dict[str, Any]) -> Exception:
    """Return the child's error as one of this process: only classes of `errors` are made."""
    kind, text = getattr(errors, str(answer.get("class")), None), str(answer.get("text"))
    if isinstance(kind, type) and issubclass(kind, StpathError):
        raised = kind(text)
        raised.may_pass = bool(answer.get("may_pass"))
        return raised
    return RuntimeError(text)


# ---- the side of the parent


class _Child:
    """A child that waits for requests. `served` counts those that it has answered; `is_late` says that one took too long."""

    def __init__(self, limits: Limits) -> None:
        self.memory_bytes, self.served, self.is_late = limits.memory_bytes, 0, False
        program = [sys.executable, "-m", "stpath_assets.confined", str(limits.memory_bytes), str(os.getpid())]
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "ARROW_DEFAULT_MEMORY_POOL": "system"}
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, request: str, seconds: float) -> tuple[dict[str, Any] | None, str]:
        """Return the answer, or None and why there is none."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None, "its reader ended early"
        try:
            return self._wait(seconds)
        except BaseException:  # Ctrl-C: what it is at is not asked for any more
            self.end()
            raise

    def _wait(self, seconds: float) -> tuple[dict[str, Any] | None, str]:
        line, end = bytearray(), time.monotonic() + seconds
        out = self.process.stdout
        assert out is not None
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([out], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.is_late = True
                return None, f"opening it took longer than {seconds:g} s"
            some = os.read(out.fileno(), 1 << 16)
            if not some:
                return None, f"its reader crashed ({self._ended()})"
            line += some
            if len(line) > _LONGEST_ANSWER:
                return None, "its reader says too much"
        self.served += 1
        return json.loads(line), ""

    def _ended(self) -> str:
        code = self.process.wait()
        with suppress(ValueError):
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"signal {-code}"

    def end(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


class _Children:
    """The idle children of this process.

    One thread that never ends starts them all: the system tells a child that its parent died when the thread that started it
    ends. What is forked from this process has children of its own.
    """

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._lock, self._pid, self._starter = threading.Lock(), 0, ThreadPoolExecutor(1)

    def take(self, limits: Limits, new: bool = False) -> _Child:
        """Return an idle child with these limits, or a new one."""
        with self._lock:
            if self._pid != os.getpid():
                self._idle, self._pid, self._starter = [], os.getpid(), ThreadPoolExecutor(1, "confined")
            while self._idle and not new:
                child = self._idle.pop()
                if child.memory_bytes == limits.memory_bytes and child.process.poll() is None:
                    return child
                child.end()
            return self._starter.submit(_Child, limits).result()

    def give_back(self, child: _Child) -> None:
        """Keep a child for the next call."""
        with self._lock:
            self._idle.append(child)

    def end_all(self) -> None:
        """Kill the idle children."""
        with self._lock:
            if self._pid == os.getpid():
                while self._idle:
                    self._idle.pop().end()


_children = _Children()
atexit.register(_children.end_all)


# ---- the side of the child


def _serve(memory_bytes: int, parent: int) -> None:
    """Answer requests on stdin until it is closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getppid() != parent:  # it died before
        return
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        function, args, environment = json.loads(line)
        for name in os.environ.keys() - environment.keys() - set(_ONE_THREAD):
            del os.environ[name]
        os.environ.update({k: v for k, v in environment.items() if k not in _ONE_THREAD})
        out.write(json.dumps(_answer(function, args)).encode() + b"\n")
        out.flush()


def _answer(function: str, args: Sequence[Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(*args)}
    except Exception as e:
        if _is_memory(e):
            return {"is_memory": True}
        if isinstance(e, StpathError):
            return {"class": type(e).__name__, "text": str(e), "may_pass": e.may_pass}
        return {"class": "", "text": describe(e, 2000)}


def _is_memory(error: BaseException | None) -> bool:
    """Return whether an error comes from a full memory. Parsers wrap it."""
    while error is not None:
        if isinstance(error, MemoryError) or "ArrowMemoryError" in type(error).__name__:
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    # By its own name: what it imports finds this module under it, too.
    from stpath_assets.confined import _serve as serve

    serve(int(sys.argv[1]), int(sys.argv[2]))
