"""The demo, run once as a user runs it, for all tests of the pipeline."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

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


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A data root that `stpath-assets demo` has filled, and what it printed. Not to be changed by a test."""
    home = tmp_path_factory.mktemp("demo")
    return home, command("demo", "--home", home)


@pytest.fixture
def demo_home(demo: tuple[Path, Result]) -> Path:
    """The demo's data root. Not to be changed by a test."""
    home, ran = demo
    assert ran.exit_code == 0, ran.stderr
    return home
