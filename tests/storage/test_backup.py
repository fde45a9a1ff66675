"""Backups as docs/operations.md has them: lake.sqlite first, then the tables, beside a writer; restored in place."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from stpath_assets.doctor.root import counts, tables
from stpath_assets.storage import Store
from tests.storage.parts import METRICS, made_from, metrics, register


def back_up(home: Path, to: Path) -> None:
    """The two steps of the docs, by Python's sqlite3."""
    to.mkdir()
    with closing(sqlite3.connect(home / "lake.sqlite")) as lake, closing(sqlite3.connect(to / "lake.sqlite")) as copy:
        lake.backup(copy)
    shutil.copytree(home / "tables", to / "tables", ignore=shutil.ignore_patterns("*.tmp"))


def test_a_backup_beside_a_writer_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    register(store, "a")
    store.write(METRICS, "a", metrics(mse=0.0), made_from(0))
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            store.write(METRICS, "a", metrics(mse=float(n)), made_from(n))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(5):
            back_up(store.home, tmp_path / f"backup{i}")
    finally:
        stop.set()
        writer.join()
    for i in range(5):
        restored = Store(tmp_path / f"backup{i}")
        assert tables(restored).ok, tables(restored).said
        assert counts(restored).ok
        assert len(set(restored.read(METRICS, "a")["mse"].to_pylist())) == 1


def test_a_backup_without_its_tables_says_which_parts_are_gone(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    register(store, "a")
    store.write(METRICS, "a", metrics(), made_from(0))
    back_up(store.home, tmp_path / "backup")
    shutil.rmtree(tmp_path / "backup" / "tables" / "parts")
    check = tables(Store(tmp_path / "backup"))
    assert not check.ok
    assert f"a {METRICS}: its file is gone" in check.said
    with pytest.raises(Exception, match="make it again: stpath-assets run a"):
        Store(tmp_path / "backup").read(METRICS, "a")
