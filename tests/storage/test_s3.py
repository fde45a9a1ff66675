"""Tables on an object store: a server of S3's protocol on this machine, with the metadata in lake.sqlite or on Postgres."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from stpath_assets.errors import StorageError
from stpath_assets.storage import Home, Store, lake, maintenance
from stpath_assets.storage import store as storage
from tests.storage.parts import (
    FILES,
    METRICS,
    contents,
    files,
    killed_before_registration,
    made_from,
    metrics,
    register,
    views,
    write_two,
)

pytestmark = pytest.mark.server

NOW = timedelta(0)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> Iterator[Store]:
    """Its metadata on this machine, or nothing of it but locks."""
    database = request.getfixturevalue("database") if request.param == "postgres" else None
    store = Store(Home(tmp_path / "root", lake=database, tables=f"s3://{bucket}/lab 3/tables"))
    yield store
    lake._forget(store.place)


def test_parts_are_written_read_replaced_and_maintained(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LEAST_PARTS", 2)
    before, seen = write_two(store)
    assert len(files(store)) == 2 * len(FILES) + 1
    assert [p for p in (store.home / "tables").rglob("*") if p.is_file()] == []
    assert store.is_current(METRICS, "a", made_from(2))
    assert {store.verify(p) for p in store.parts()} == {None}
    done = maintenance.maintain(store, NOW, NOW, timedelta(days=1))
    assert (done.merged, done.into, done.removed) == (2 * len(FILES), len(FILES), 2 * len(FILES) + 1)
    assert contents(store) == before
    assert views(store) == seen
    assert files(store) == {p.file for p in store.parts() if p.file}
    store.write(METRICS, "b", metrics(2, 1.0, "b"), made_from(3))
    assert store.rows(f"select slide_id, count(*) from lake.main.{METRICS} group by 1 order by 1") == [
        ("a", 3),
        ("b", 2),
    ]


def test_a_finished_object_is_adopted(store: Store) -> None:
    register(store, "a")
    with killed_before_registration(store):
        store.write(METRICS, "a", metrics(mse=3.0), made_from(1))
    assert Store(store.place).is_current(METRICS, "a", made_from(1))
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {3.0}


def test_objects_that_are_gone_or_damaged_are_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for slide_id in "ab":
        store.write(METRICS, slide_id, metrics(slide_id=slide_id), made_from(1))
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    places = {p.slide_id: store.objects.where(str(p.file)) for p in store.parts()}
    fs.rm_file(places["a"])
    whole = bytearray(fs.cat_file(places["b"]))
    whole[len(whole) // 2] ^= 1
    fs.pipe_file(places["b"], bytes(whole))
    monkeypatch.setattr(storage, "_verified", set())
    fresh = Store(store.place)
    assert not fresh.is_current(METRICS, "a", made_from(1))
    for slide_id, message in (("a", "its file is gone"), ("b", "its file is damaged")):
        with pytest.raises(StorageError, match=rf"^{slide_id}: evaluation_metrics: {message}"):
            fresh.read(METRICS, slide_id)
        fresh.write(METRICS, slide_id, metrics(slide_id=slide_id), made_from(1))
        assert fresh.read(METRICS, slide_id).num_rows == 3
        assert fresh.is_current(METRICS, slide_id, made_from(1))


def test_what_another_process_wrote_is_seen(store: Store) -> None:
    """A listing that was made before does not hide it."""
    store.create()
    assert files(store) == set()
    other = Store(store.place)
    other.objects.__dict__["_fs"] = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    other.write(METRICS, "a", metrics(), made_from(1))
    assert len(files(store)) == 1
    assert store.is_current(METRICS, "a", made_from(1))


def test_orphans_go_and_parts_stay(store: Store) -> None:
    store.write(METRICS, "a", metrics(), made_from(1))
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.pipe_file(store.objects.where(f"parts/{METRICS}/a/orphan.parquet"), b"x")
    maintenance.maintain(store, NOW, NOW, timedelta(days=1))
    assert len(files(store)) == 2
    maintenance.maintain(store, NOW, NOW, timedelta(seconds=-5))
    assert files(store) == {p.file for p in store.parts()}
    assert store.read(METRICS, "a").equals(metrics())


class _Busy(BaseHTTPRequestHandler):
    """Answers 503 to everything, as S3 does when it is asked too much."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["gone", "busy"])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that is not there, or that answers 503."""
    if request.param == "gone":
        yield "http://127.0.0.1:9"
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_does_not_serve_is_one_line_and_nothing_is_lost(
    store: Store, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(METRICS, "a", metrics(), made_from(1))
    monkeypatch.setattr(storage, "_verified", set())
    with monkeypatch.context() as gone:
        gone.setenv("AWS_ENDPOINT_URL", broken)
        gone.setenv("AWS_MAX_ATTEMPTS", "1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        there = Store(store.place)
        for work in (
            lambda: there.read(METRICS, "a"),
            lambda: there.is_current(METRICS, "a", made_from(1)),
            lambda: there.write(METRICS, "a", metrics(mse=2.0), made_from(2)),
        ):
            with pytest.raises(StorageError) as error:
                work()
            assert "\n" not in str(error.value)
            assert "s3://" in str(error.value)
            assert "any-secret" not in str(error.value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert Store(store.place).read(METRICS, "a").equals(metrics()), "it is not marked as damaged"


def test_a_bucket_that_does_not_exist(store: Store, tmp_path: Path) -> None:
    there = Store(Home(tmp_path / "other", tables="s3://no-such-bucket-anywhere/tables"))
    with pytest.raises(
        StorageError, match=r"^s3://no-such-bucket-anywhere/tables/: does not exist .*check STPATH_TABLES$"
    ) as error:
        there.write(METRICS, "a", metrics(), made_from(1))
    assert "\n" not in str(error.value)
