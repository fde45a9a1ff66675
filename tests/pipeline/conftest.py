"""The demo, run once as a user runs it, for all tests of the pipeline."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from stpath_assets.cli import main

Run = Callable[..., Result]


def command(*arguments: str | Path) -> Result:
    """Runs `stpath-assets` in this process: its code and text are those of a process of its own, at a tenth of the time."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def sa() -> Run:
    """`sa("sql", "select 1", "--home", home)`."""
    return command


@pytest.fixture
def started(tmp_path: Path) -> "Callable[..., subprocess.Popen[str]]":
    """As `sa`, but in a process of its own that can be killed."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}

    def start(*arguments: str | Path) -> "subprocess.Popen[str]":
        program = [sys.executable, "-m", "stpath_assets", *map(str, arguments)]
        return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return start


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A data root that `stpath-assets demo` has filled, and what it printed. Not to be changed by a test.

    Made once for all processes of pytest: it takes the longest of all fixtures.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, said = folder / "demo", folder / "demo.json"
    with FileLock(folder / "demo.lock"):
        if not said.exists():
            ran = command("demo", "--home", home)
            said.write_text(json.dumps([ran.exit_code, ran.stdout, ran.stderr]))
    return home, Ran(*json.loads(said.read_text()))


@pytest.fixture
def demo_home(demo: tuple[Path, Ran]) -> Path:
    """The demo's data root. Not to be changed by a test."""
    home, ran = demo
    assert ran.exit_code == 0, ran.stderr
    return home
