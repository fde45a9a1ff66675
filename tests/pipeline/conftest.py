"""The demo, run once as a user runs it, for all tests of the pipeline."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.roots import command, made_once

Run = Callable[..., Result]

# One more than the UI shows, fewer than are drawn by default: a map of a phantom takes half a second.
FIGURE_GENES = "EPCAM,ERBB2,CD68,ACTA2,VIM"


@pytest.fixture
def sa() -> Run:
    """`sa("sql", "select 1", "--home", home)`."""
    return command


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


def watched(patch: pytest.MonkeyPatch) -> list[str]:
    """The connections and look-ups of this process that would leave the machine, from now on."""
    asked: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            asked.append(f"connect {address}")
        connect(self, address)

    def looking_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in (None, "localhost", "127.0.0.1", "::1"):
            asked.append(f"look-up of {host}")
        return look_up(host, *arguments, **options)

    patch.setattr(socket.socket, "connect", connecting)
    patch.setattr(socket, "getaddrinfo", looking_up)
    return asked


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A data root that `stpath-assets demo` has filled, and what it printed. Not to be changed by a test.

    Made once for all processes of pytest: it takes the longest of all fixtures.
    """

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STPATH_FIGURE_GENES", FIGURE_GENES)
            asked = watched(patch)
            ran = command("demo", "--home", folder / "home")
        (folder / "network.json").write_text(json.dumps(asked))
        (folder / "said.json").write_text(json.dumps([ran.exit_code, ran.stdout, ran.stderr]))

    folder = made_once(tmp_path_factory, "demo", make)
    return folder / "home", Ran(*json.loads((folder / "said.json").read_text()))


@pytest.fixture
def same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later runs of a copy of the demo want the figures that are there."""
    monkeypatch.setenv("STPATH_FIGURE_GENES", FIGURE_GENES)


@pytest.fixture(scope="session")
def demo_home(demo: tuple[Path, Ran]) -> Path:
    """The demo's data root. Not to be changed by a test."""
    home, ran = demo
    assert ran.exit_code == 0, ran.stderr
    return home
