"""A lake whose metadata is a Postgres database: the same as on SQLite, and what a server that goes away adds."""

import contextlib
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stpath_assets.errors import StorageError
from stpath_assets.slides import Registry
from stpath_assets.storage import Home, Store, lake, maintenance
from stpath_assets.storage import store as storage
from tests.storage.parts import (
    FILES,
    METRICS,
    PREDICTIONS,
    child,
    contents,
    files,
    joined,
    made_from,
    metrics,
    register,
    views,
    write_metrics,
    write_prediction,
    write_two,
)
from tests.storage.servers import PASSWORD, USER, Postgres

pytestmark = pytest.mark.server

NOW = timedelta(0)


@pytest.fixture
def home(database: str, tmp_path: Path) -> Home:
    return Home(tmp_path / "root", lake=database)


@pytest.fixture
def store(home: Home) -> Store:
    store = Store(home)
    store.create()
    return store


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "ATTEMPTS", 3)


def test_parts_are_written_read_replaced_and_maintained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LEAST_PARTS", 2)
    before, seen = write_two(store)
    assert not (store.home / "lake.sqlite").exists()
    done = maintenance.maintain(store, NOW, NOW, NOW)
    assert (done.merged, done.into) == (2 * len(FILES), len(FILES))
    assert contents(store) == before
    assert views(store) == seen
    assert files(store) == {p.file for p in store.parts() if p.file}
    lake._forget(store.place)
    assert contents(Store(store.place)) == before, "as a new process reads it"
    store.remove([METRICS], "a")
    assert store.part(METRICS, "a") is None


def test_an_empty_database_is_left_empty_by_who_only_reads(home: Home) -> None:
    home.root.mkdir()
    with pytest.raises(StorageError, match=r"holds no slides yet; add one: stpath-assets add SLIDE$"):
        Store(home).parts()
    with pytest.raises(StorageError, match="holds no slides yet"):
        Store(home).parts()
    store = Store(home)
    store.create()
    assert store.parts() == []


def test_the_register_is_kept(store: Store, drawn_slide: Path) -> None:
    """Its rows have a list column."""
    row = Registry(store).add(drawn_slide, organ="Breast", patient="P1")
    register(store, "b")
    lake._forget(store.place)
    assert Registry(Store(store.place)).get("drawn") == row
    assert Registry(Store(store.place)).get("b").warnings == ("pale", "torn")
    Registry(store).retire("b", "torn")
    assert [r.slide_id for r in Registry(store).live()] == ["drawn"]


def commit(home: Home, writer: int, times: int) -> None:
    store = Store(home)
    for i in range(times):
        slide_id = f"w{writer}-{i}"
        store.write(METRICS, slide_id, metrics(slide_id=slide_id), made_from(i))
        store.write(METRICS, "both", metrics(mse=float(writer), slide_id="both"), made_from(100 * writer + i))


def test_two_processes_writing_at_once_lose_nothing(store: Store) -> None:
    assert joined(*(child(commit, store.place, w, 8) for w in (1, 2))) == [0, 0]
    assert store.slide_ids(METRICS) == ["both", *sorted(f"w{w}-{i}" for w in (1, 2) for i in range(8))]
    counts = store.rows(f"select slide_id, count(*) from lake.parts.{METRICS} group by slide_id")
    assert {n for _, n in counts} == {3}
    assert len(counts) == 17


def test_two_first_parts_of_one_slide_are_one_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes an earlier one out, so the database sees no conflict between them."""
    registered, met = storage.register, threading.Barrier(2)

    def register_slowly(*arguments: object) -> None:
        registered(*arguments)  # type: ignore[arg-type]
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(1)

    monkeypatch.setattr(storage, "register", register_slowly)
    writers = [
        threading.Thread(target=write_metrics, args=(Store(store.place), metrics(), "a", made_from(i))) for i in (1, 2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.rows("select count(*) from lake.parts.lineage") == [(1,)]
    assert store.rows(f"select count(*) from lake.parts.{METRICS}") == [(3,)]


def test_two_processes_make_one_lake(home: Home) -> None:
    assert joined(*(child(commit, home, w, 2) for w in (1, 2, 3))) == [0, 0, 0]
    assert len(Store(home).slide_ids(METRICS)) == 7


def test_a_server_that_is_started_again_is_waited_for(postgres: Postgres, store: Store) -> None:
    write_metrics(store, metrics())
    postgres.stop()
    later = threading.Timer(1.5, postgres.start)
    later.start()
    try:
        write_metrics(store, metrics(mse=2.0), fingerprint=made_from(2))
    finally:
        later.join()
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {2.0}
    assert store.rows(f"select count(*) from lake.parts.{METRICS}") == [(3,)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.parts(),
        lambda s: Registry(s).all(),
        lambda s: s.read("gigapath_throughput", "a"),
        lambda s: s.read_by_gene(PREDICTIONS, "a"),
    ],
)
def test_connections_of_before_a_restart_are_made_anew(
    postgres: Postgres, store: Store, ask: Callable[[Store], object]
) -> None:
    from tests.storage.parts import THROUGHPUT, any_rows

    register(store, "a")
    store.write(THROUGHPUT, "a", any_rows(THROUGHPUT), made_from(1))
    write_prediction(store, ["A"], np.ones((2, 1), np.float32))
    before = ask(store)
    postgres.stop()
    postgres.start()
    after = ask(store)
    assert type(after) is type(before)
    if isinstance(before, pa.Table):
        assert before.equals(after)


def require_one_line(error: StorageError) -> None:
    assert "\n" not in str(error)
    assert PASSWORD not in str(error)
    assert "(a bug" not in str(error)


def test_a_server_that_is_gone_for_good_and_the_part_is_not_lost(
    postgres: Postgres, store: Store, short_wait: None
) -> None:
    register(store, "a")

    def left_alone() -> None:
        with store.stage("a", made_from(1)) as stage:
            stage.write(METRICS, metrics(mse=4.0))
            postgres.stop()

    try:
        with pytest.raises(StorageError, match="database cannot be reached; start it, or check STPATH_LAKE") as error:
            left_alone()
        require_one_line(error.value)
        for ask in (
            store.parts,
            lambda: store.read(METRICS, "a"),
            lambda: Registry(store).all(),
            Store(store.place).open,
        ):
            with pytest.raises(StorageError, match="cannot be reached") as error:
                ask()
            require_one_line(error.value)
    finally:
        postgres.start()
    (file,) = files(store)
    assert store.is_current(METRICS, "a", made_from(1)), "the next run finds the finished file"
    part = store.part(METRICS, "a")
    assert part
    assert part.file == file
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {4.0}
    assert store.rows(f"select count(*) from lake.main.{METRICS}") == [(3,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("/lake", "/no-such-database"), 'database "no-such-database.*" does not exist'),
        ((PASSWORD, "wrong-word"), "password authentication failed"),
        ((":", ":"), None),
    ],
)
def test_a_database_that_cannot_be_opened_says_why(
    home: Home, tmp_path: Path, short_wait: None, change: tuple[str, str], message: str | None
) -> None:
    (tmp_path / "root").mkdir()
    assert home.lake
    other = Home(home.root, lake=home.lake.replace(*change))
    if message is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            other = Home(home.root, lake=f"postgres://{USER}:{PASSWORD}@127.0.0.1:{free.getsockname()[1]}/lake")
        message = "refused"
    for work in (Store(other).open, Store(other).create):
        with pytest.raises(StorageError, match=message) as error:
            work()
        require_one_line(error.value)
        assert "wrong-word" not in str(error.value)


def test_a_writer_that_holds_the_line_for_long_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "COMMIT_WAIT_S", 0.3)
    with store.lake._turn():
        with pytest.raises(StorageError, match=r"another program has held it for more than 0.3 s") as error:
            write_metrics(store, metrics())
    require_one_line(error.value)
    write_metrics(store, metrics())
