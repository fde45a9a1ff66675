"""Locks: processes take turns, the dead hold nothing, and no commit is lost between many of them."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from stpath_assets.errors import StorageError
from stpath_assets.storage import Store
from stpath_assets.storage.locks import lock
from tests.storage.parts import METRICS, child, joined, made_from, metrics, pipe, register


def hold(path: Path, ready: Any, seconds: float) -> None:
    with lock(path, 10, "the thing"):
        ready.send("held")
        time.sleep(seconds)


def append(path: Path, name: str, times: int) -> None:
    """Each turn reads a file and writes it with a line more: unguarded, lines would be lost."""
    for _ in range(times):
        with lock(path.with_suffix(".lock"), 30, "the file"):
            before = path.read_text()
            time.sleep(0.002)
            path.write_text(f"{before}{name}\n")


def commit(root: Path, writer: int, times: int) -> None:
    store = Store(root)
    for i in range(times):
        slide_id = f"w{writer}-{i}"
        store.write(METRICS, slide_id, metrics(slide_id=slide_id), made_from(i))


def test_two_processes_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.touch()
    assert joined(*(child(append, path, name, 12) for name in "xy")) == [0, 0]
    assert sorted(path.read_text().split()) == ["x"] * 12 + ["y"] * 12


def test_the_error_names_the_holder(tmp_path: Path) -> None:
    path, (receive, send), waiting = tmp_path / "a.lock", pipe(), list[str]()
    holder = child(hold, path, send, 30)
    assert receive.poll(30)
    name = rf"process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    with pytest.raises(
        StorageError, match=rf"^the thing is held by {name} for more than 0.3 s; wait for it, or end it$"
    ):
        with lock(path, 0.3, "the thing", waiting.append):
            pytest.fail("two hold it")
    assert len(waiting) == 1, "who waits is told once"
    assert re.fullmatch(name, waiting[0])
    os.kill(holder.pid, signal.SIGKILL)
    with lock(path, 5, "the thing"):
        assert f"process {os.getpid()} " in path.read_text()
    assert path.read_text() == "", "nobody is named who has given it back"


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), lock(tmp_path / "a.lock", 0, "the thing"):
            raise RuntimeError("the work fails")


def test_the_same_process_waits_too(tmp_path: Path) -> None:
    with (
        lock(tmp_path / "a.lock", 0, "the thing"),
        pytest.raises(StorageError, match=f"held by process {os.getpid()} "),
    ):
        with lock(tmp_path / "a.lock", 0.2, "the thing"):
            pytest.fail("two hold it")


def test_many_writers_lose_nothing(store: Store) -> None:
    writers = [f"w{w}-{i}" for w in range(4) for i in range(10)]
    register(store, *writers[:3])
    assert joined(*(child(commit, store.home, w, 10) for w in range(4)), within_s=120) == [0] * 4
    assert store.slide_ids(METRICS) == sorted(writers)
    assert store.rows(f"select count(*), count(distinct slide_id) from lake.parts.{METRICS}") == [(120, 40)]
    assert store.rows(f"select count(*) from lake.main.{METRICS}") == [(9,)]
    for part in store.parts():
        assert store.verify(part) is None
