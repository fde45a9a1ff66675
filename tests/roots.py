"""Data roots that are made once and copied, since a lake takes a second and a run several; and runs whose pictures are blank.

Tests read a shared root, or change a copy of it. The demo's root is the pipeline's own, in its conftest.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from stpath_assets.cli import main
from stpath_assets.storage import Store, pictures


def command(*arguments: str | Path) -> Result:
    """Runs `stpath-assets` in this process: its code and text are those of a process of its own, at a tenth of the time."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """As `command`, but in a process of its own that can be killed."""
    program = [sys.executable, "-m", "stpath_assets", *map(str, arguments)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> Iterator[None]:
    """Dagster reads its hundred migrations anew for each database that it opens, several a run: once a process will do."""
    from alembic.script import ScriptDirectory

    read, known = ScriptDirectory.from_config, dict[str, ScriptDirectory]()

    def from_config(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of pytest's processes to ask for it fills; the others wait for it."""
    base = factory.getbasetemp()
    around = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = around / name, around / f"{name}.done"
    with FileLock(around / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def copied(store: Store, root: Path) -> Store:
    """The root of a store that nobody is at, copied: a third of the time of a new lake."""
    shutil.copytree(store.home, root)
    return Store(root)


def copy_home(home: Path, to: Path) -> None:
    """Copy a data root, or a folder with one, that other tests read. SQLite's files beside a database come and go with its
    readers.
    """

    def copy(source: str, target: str) -> str:
        with suppress(FileNotFoundError):
            shutil.copy2(source, target)
        return target

    shutil.copytree(home, to, copy_function=copy, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A new lake. Not to be written: copy it."""
    store = Store(tmp_path_factory.mktemp("lake") / "root")
    store.create()
    return store


@pytest.fixture
def empty_store(empty_root: Store, tmp_path: Path) -> Store:
    """The tables of a new data root, `root`."""
    return copied(empty_root, tmp_path / "root")


def blank(patch: pytest.MonkeyPatch) -> None:
    """Maps and scatters come out blank; files, and what they were made from, are as ever."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    patch.setattr(pictures, "save", lambda _, path, made_from: pictures.save_image(pixel, path, made_from))


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """`blank`, for tests of something else: drawing takes as long as all the rest of a run of a small slide."""
    blank(monkeypatch)


def write_spots(folder: Path, name: str, count: int = 3, x: int = 800) -> Path:
    """Four measured spots of EPCAM and VIM, from `x` on."""
    path = folder / f"{name}_counts.tsv"
    path.write_text(f"\tEPCAM\tVIM\n1x1\t{count}\t0\n2x1\t0\t4\n3x1\t2\t5\n4x1\t7\t1\n")
    rows = "".join(f"{i}\t1\t{i}\t1\t{x + 60 * i}\t600\t1\n" for i in range(1, 5))
    (folder / f"{name}_selection.tsv").write_text("x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n" + rows)
    return path


def _finish(folder: Path) -> None:
    from tests.conftest import tissue_image, write_tiff  # which imports this module

    home = folder / "home"
    scan, spots = write_tiff(folder / "a.tif", tissue_image()), write_spots(folder, "a")
    told = ["--organ", "Breast", "--tech", "Visium", "--spots", spots]
    with pytest.MonkeyPatch.context() as patch:
        blank(patch)
        assert command("add", scan, "--home", home, *told).exit_code == 0
        ran = command("run", "--home", home, "--encoder", "demo", "--genes", "EPCAM,VIM")
    assert ran.exit_code == 0, ran.stderr


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slide `a`, its four spots, and `home`, where a run has predicted EPCAM and VIM. Not to be changed."""
    return made_once(tmp_path_factory, "finished", _finish)


@pytest.fixture
def finished_home(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data root of a copy of `finished`, whose scan and spots are those of the copy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy_home(finished, tmp_path)
    home = tmp_path / "home"
    columns = ", ".join(f"{c} = replace({c}, ?, ?)" for c in ("uri", "spots_uri"))
    paths = [str(finished), str(tmp_path)] * 2
    Store(home).lake.transact(lambda c: c.execute(f"update lake.parts.slides set {columns}", paths))
    return home
