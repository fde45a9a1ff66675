"""What goes wrong around a lake: each is one line that says what to do, nothing is lost, and the next try works."""

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stpath_assets.errors import StorageError
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, lake
from stpath_assets.storage.maintenance import maintain
from tests.roots import copied
from tests.storage.parts import (
    METRICS,
    PREDICTIONS,
    THROUGHPUT,
    any_rows,
    child,
    contents,
    drafts,
    joined,
    made_from,
    metrics,
    pipe,
    register,
    views,
    write_any,
    write_metrics,
)


@pytest.fixture
def filled(store: Store) -> Store:
    """A lake with two slides and some of each kind of table."""
    register(store, "a", "b")
    write_metrics(store, metrics())
    write_any(store, PREDICTIONS)
    store.write(THROUGHPUT, "a", any_rows(THROUGHPUT), made_from(1))
    return store


def require_one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert "(a bug" not in str(error)


WORKS: list[Callable[[Store], Any]] = [
    lambda s: s.parts(),
    lambda s: s.read(METRICS, "a"),
    lambda s: s.slide_ids(METRICS),
    lambda s: Registry(s).all(),
    lambda s: Registry(s).retire("b"),
    lambda s: write_metrics(s, metrics(mse=3.0), fingerprint=made_from(3)),
    lambda s: maintain(s, timedelta(0)),
]


# ---- the metadata


@pytest.mark.parametrize("harm", ["garbage", "half", "header", "page", "empty", "gone"])
def test_damaged_metadata_is_named_and_restored_from_a_copy(filled: Store, harm: str) -> None:
    database = filled.place.sqlite
    whole, before = database.read_bytes(), contents(filled)
    page = bytes(4096)
    harmed = {
        "garbage": bytes(range(256)) * 40, "half": whole[: len(whole) // 2], "header": b"x" + whole[1:],
        "page": page[:100].join([whole[:100], whole[200:]]), "empty": b"",
    }  # fmt: skip
    database.unlink()
    if harm in harmed:
        database.write_bytes(harmed[harm])
    said = set()
    for work in WORKS:
        with pytest.raises(StorageError, match=r"lake\.sqlite") as error:
            work(Store(filled.home))
        require_one_line(error.value)
        said.add(str(error.value))
    assert any("restore it from a backup" in s for s in said), said
    if harm in harmed:
        assert database.read_bytes() == harmed[harm], "nothing was made anew in its place"
    else:
        assert not database.exists()
    for beside in filled.home.glob("lake.sqlite-*"):
        beside.unlink()
    database.unlink(missing_ok=True)
    database.write_bytes(whole)
    assert contents(Store(filled.home)) == before
    write_metrics(Store(filled.home), metrics(mse=3.0), fingerprint=made_from(3))


def test_metadata_that_was_only_begun_is_finished(tmp_path: Path) -> None:
    """As after a kill in the first moments of a new root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "lake.sqlite").touch()
    write_metrics(Store(tmp_path / "root"), metrics())
    assert Store(tmp_path / "root").read(METRICS, "a").equals(metrics())


def hold_database(path: Path, ready: Any, end: Any) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("begin exclusive")
    ready.send("held")
    end.poll(60)


def test_metadata_that_another_program_holds(filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "BUSY_MS", 100)
    monkeypatch.setattr(lake, "ATTEMPTS", 2)
    store = copied(filled, tmp_path / "held")
    before = contents(filled)
    (receive, ready), (end, finish) = pipe(), pipe()
    holder = child(hold_database, store.place.sqlite, ready, end)
    assert receive.poll(30)
    with pytest.raises(StorageError, match=r"lake\.sqlite: another program holds it; try again") as error:
        write_metrics(store, metrics(mse=3.0), fingerprint=made_from(3))
    require_one_line(error.value)
    assert store.read(METRICS, "a").equals(metrics()), "readers are not blocked"
    finish.send("end")
    joined(holder)
    assert contents(store) == before
    assert store.is_current(METRICS, "a", made_from(3)), "the finished file was not lost"
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {3.0}


# ---- the disk


def mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True).returncode != 0:
        pytest.skip("may not mount here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(filler: Path, free_kb: int) -> None:
    """Fills a disk up to so much room."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - free_kb * 1024)


def test_a_full_disk_in_every_write(filled: Store, small_disk: Path) -> None:
    """With ever more room, so that it is another write which finds none: of a lock, a file, the log, the metadata."""
    store = copied(filled, small_disk / "root")
    before, filler, failed, done = contents(store), small_disk / "filler", set(), False
    for free_kb in (0, 4, 8, 12, 16, 24, 40, 64, 96, 128, 192, 256, 384, 640, 1024, 2048):
        fill(filler, free_kb)
        fresh, n = Store(store.home), 100 + free_kb
        try:
            with fresh.stage("a", made_from(n)) as stage:
                stage.write(METRICS, metrics(200, float(n)))
                stage.write(THROUGHPUT, any_rows(THROUGHPUT))
            done = True
        except StorageError as e:
            failed.add(str(e))
        finally:
            filler.unlink()
        assert drafts(store) == []
        if done:
            break
        assert contents(Store(store.home)) == before, f"with {free_kb} KB free"
    assert done
    assert failed
    assert [said for said in failed if "the disk is full" not in said or "\n" in said] == []
    assert set(Store(store.home).read(METRICS, "a")["mse"].to_pylist()) == {float(n)}
    assert len(Store(store.home).read(METRICS, "a")) == 200


@pytest.mark.parametrize(
    "work", [lambda s: s.create(), lambda s: register(s, "a"), lambda s: write_metrics(s, metrics())]
)
def test_a_new_root_on_a_full_disk(small_disk: Path, work: Callable[[Store], Any]) -> None:
    filler = small_disk / "filler"
    fill(filler, 40)
    with pytest.raises(StorageError, match="the disk is full") as error:
        work(Store(small_disk / "root"))
    require_one_line(error.value)
    filler.unlink()
    write_metrics(Store(small_disk / "root"), metrics())
    assert Store(small_disk / "root").read(METRICS, "a").equals(metrics())


def test_maintenance_on_a_full_disk(filled: Store, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stpath_assets.storage import maintenance

    monkeypatch.setattr(maintenance, "LEAST_PARTS", 2)
    write_metrics(filled, metrics(slide_id="b"), "b")
    store = copied(filled, small_disk / "root")
    before, filler = contents(store), small_disk / "filler"
    fill(filler, 0)
    with pytest.raises(StorageError, match="the disk is full") as error:
        maintain(Store(store.home), timedelta(0))
    require_one_line(error.value)
    filler.unlink()
    assert contents(Store(store.home)) == before
    maintain(Store(store.home), timedelta(0), timedelta(0), timedelta(0))
    assert contents(Store(store.home)) == before


# ---- a root that cannot be written


@pytest.fixture
def read_only(filled: Store, tmp_path: Path) -> Iterator[Store]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount("--bind", str(filled.home), str(folder))
    mount("-o", "remount,bind,ro", str(folder))
    yield Store(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_root_is_read(read_only: Store, filled: Store) -> None:
    assert contents(read_only) == contents(filled)
    assert views(read_only) == views(filled)
    assert [r.slide_id for r in Registry(read_only).all()] == ["a", "b"]
    assert read_only.is_current(METRICS, "a", read_only.require(METRICS, "a"))
    assert not read_only.is_current(METRICS, "a", made_from(9))
    assert {read_only.verify(p) for p in read_only.parts()} == {None}


def test_what_another_machine_writes_to_a_read_only_root_is_seen(read_only: Store, filled: Store) -> None:
    assert set(read_only.read(METRICS, "a")["mse"].to_pylist()) == {0.5}
    write_metrics(filled, metrics(mse=8.0), fingerprint=made_from(8))
    assert set(read_only.read(METRICS, "a")["mse"].to_pylist()) == {8.0}


@pytest.mark.parametrize("work", [*WORKS[4:], lambda s: s.create(), lambda s: s.remove([METRICS], "a")])
def test_a_read_only_root_is_not_written(read_only: Store, filled: Store, work: Callable[[Store], Any]) -> None:
    before = contents(filled)
    with pytest.raises(StorageError) as error:
        work(read_only)
    require_one_line(error.value)
    assert str(read_only.home) in str(error.value) or "read-only" in str(error.value).lower()
    assert contents(filled) == before
    if work in WORKS:
        work(filled)


def test_damage_on_a_read_only_root_is_said_and_not_stored(read_only: Store, filled: Store) -> None:
    path = filled.path(METRICS, "a")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(StorageError, match="is damaged"):
        read_only.read(METRICS, "a")
    assert {p.damaged for p in filled.parts()} == {None}
