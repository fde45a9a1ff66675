"""Maintenance: merged or not, every value is the same; only what no snapshot needs goes; nothing is lost, killed or raced."""

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpath_assets.errors import StorageError
from stpath_assets.storage import Store, maintenance
from stpath_assets.storage.by_gene import rows_of_group
from stpath_assets.storage.maintenance import MERGED, clean, expire, maintain, merge
from stpath_assets.tables import PART_TABLES, TABLES
from tests.roots import copied
from tests.storage.parts import (
    FILES,
    FINGERPRINT,
    METRICS,
    PREDICTIONS,
    SPOTS,
    child,
    contents,
    files,
    joined,
    killed_before_registration,
    made_from,
    metrics,
    pipe,
    plain_client,
    register,
    views,
    write_any,
    write_metrics,
    write_prediction,
)

NOW = timedelta(0)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LEAST_PARTS", 2)


@pytest.fixture(scope="module")
def cohort_root(empty_root: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four slides with all tables, one of them replaced once."""
    store = copied(empty_root, tmp_path_factory.mktemp("cohort") / "root")
    register(store, *"abcd")
    for slide_id in "abcd":
        with store.stage(slide_id, made_from(1)) as stage:
            for table in FILES:
                write_any(Stage(store, stage), table, slide_id)
    write_metrics(store, metrics(5, 0.25, "c"), "c", made_from(2))
    return store


class Stage:
    """A stage in the place of a store, for helpers that write one part: many in one transaction are faster."""

    def __init__(self, store: Store, stage: Any) -> None:
        self._stage, self.path = stage, store.path

    def write(self, table: str, _: str, rows: pa.Table, __: Any) -> None:
        self._stage.write(table, rows)

    def write_by_gene(self, table: str, _: str, keys: Any, blocks: Any, __: Any, **constants: str) -> None:
        self._stage.write_by_gene(table, keys, blocks, **constants)

    def write_sections(self, table: str, _: str, sections: Any, __: Any, summary: Any) -> None:
        self._stage.write_sections(table, sections, summary)


@pytest.fixture
def cohort(cohort_root: Store, tmp_path: Path) -> Store:
    return copied(cohort_root, tmp_path / "root")


def merged_files(store: Store) -> set[str]:
    return {f for f in files(store) if f"/{MERGED}/" in f}


def version(store: Store) -> int:
    return int(store.rows("select max(snapshot_id) from ducklake_snapshots('lake')")[0][0])


# ---- merge


def test_merging_keeps_every_value(cohort: Store) -> None:
    before, seen = contents(cohort), views(cohort)
    assert merge(cohort) == (4 * len(FILES), len(FILES))
    assert contents(cohort) == before
    assert views(cohort) == seen
    assert {p.file for p in cohort.parts()} == merged_files(cohort)
    assert contents(Store(cohort.home)) == before
    assert plain_client(cohort.home).execute(f"select count(*) from {PREDICTIONS}").fetchall() == [(200,)]
    assert merge(cohort) == (0, 0), "what is merged is left alone"
    for part in cohort.parts():
        assert cohort.verify(part) is None
        assert cohort.is_current(part.table, part.slide_id, made_from(2 if part.digest != made_from(1).digest else 1))


def test_a_part_without_rows_keeps_its_file(store: Store) -> None:
    register(store, "a")
    store.write(METRICS, "a", metrics(0), FINGERPRINT)
    assert maintain(store, NOW, NOW, NOW).removed == 0, "DuckLake does not know a file without rows"
    (part,) = store.parts()
    assert store.is_whole(part)
    assert store.verify(part) is None
    store.write(METRICS, "a", metrics(2), made_from(3))
    assert maintain(store, NOW, NOW, NOW).removed == 1, "no part names it any more"


def test_one_slide_of_a_merged_file_is_read_from_few_row_groups(cohort: Store) -> None:
    merge(cohort)
    for table, rows in ((PREDICTIONS, maintenance.HEADS), (METRICS, rows_of_group(TABLES[METRICS]))):
        with cohort.objects.open(next(f for f in merged_files(cohort) if f"/{table}/" in f)) as file:
            assert pq.ParquetFile(file).metadata.row_group(0).num_rows <= rows


GENES = st.lists(
    st.sampled_from([f"G{i}" for i in range(9)] + ["", "é", "😀", "a'b"]).filter(bool), unique=True, max_size=8
)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(GENES.map(sorted), st.integers(1, 4)), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_merging_slides_of_different_genes_and_tiles(
    store: Store, parts: list[tuple[list[str], int]], seed: int
) -> None:
    rng, ids = np.random.default_rng(seed), [f"s{seed}-{i}" for i in range(len(parts))]
    for slide_id in store.slide_ids(PREDICTIONS):
        store.remove([PREDICTIONS], slide_id)
    register(store, *ids)
    for slide_id, (genes, n) in zip(ids, parts, strict=True):
        write_prediction(store, genes, rng.standard_normal((n, len(genes))).astype(np.float32), slide_id)
    before, seen = contents(store), views(store)
    assert merge(store) == (len(parts), 1)
    assert contents(store) == before
    assert views(store) == seen


def test_genes_are_neighbours_in_a_merged_file(cohort: Store) -> None:
    """That is what merging is for: one gene of all slides is one stretch of the file."""
    from stpath_assets.storage.by_gene import read_parquet

    merge(cohort)
    part = cohort.part(PREDICTIONS, "a")
    assert part
    rows = read_parquet(cohort.path(PREDICTIONS, "a"))
    assert rows["gene"].to_pylist() == [None] * 4 + [g for g in "ABCDE" for _ in range(4)]
    assert rows["slide_id"].to_pylist() == list("abcd") * 6


def test_parts_of_a_merged_file_are_replaced_slide_by_slide_and_merged_again(cohort: Store) -> None:
    before = contents(cohort)
    merge(cohort)
    write_metrics(cohort, metrics(4, 7.0, "b"), "b", made_from(3))
    cohort.remove([METRICS], "d")
    register(cohort, "e")
    write_metrics(cohort, metrics(2, 8.0, "e"), "e", made_from(1))
    after, seen = contents(cohort), views(cohort)
    assert {k for k in before if before[k] != after.get(k)} == {(METRICS, "b"), (METRICS, "d")}
    assert merge(cohort) == (3, 1)
    assert contents(cohort) == after
    assert views(cohort) == seen
    assert len({p.file for p in cohort.parts() if p.table == METRICS}) == 1
    maintain(cohort, NOW, NOW, NOW)
    assert contents(cohort) == after
    assert views(cohort) == seen


def test_every_part_of_a_merged_file_can_be_replaced(cohort: Store) -> None:
    merge(cohort)
    (merged,) = {str(p.file) for p in cohort.parts() if p.table == METRICS}
    for slide_id in "abcd":
        write_metrics(cohort, metrics(2, 3.0, slide_id), slide_id, made_from(9))
    assert {r[0] for r in cohort.rows(f"select mse from lake.main.{METRICS}")} == {3.0}
    expire(cohort, NOW)
    clean(cohort, NOW, DAY)
    assert merged not in files(cohort)
    assert {r[0] for r in cohort.rows(f"select mse from lake.main.{METRICS}")} == {3.0}


def test_few_parts_are_left_alone(cohort: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "LEAST_PARTS", 5)
    assert merge(cohort) == (0, 0)


def test_large_files_are_left_alone_and_groups_end_at_their_size(
    cohort: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {p.slide_id: p.size_bytes or 0 for p in cohort.parts() if p.table == SPOTS}
    monkeypatch.setattr(maintenance, "MERGED_BYTES", 2 * min(sizes.values()))
    before = contents(cohort)
    merge(cohort)
    assert contents(cohort) == before
    assert len({p.file for p in cohort.parts() if p.table == SPOTS}) == 2
    monkeypatch.setattr(maintenance, "SMALL_BYTES", 10)
    assert merge(cohort) == (0, 0)


@pytest.mark.parametrize("harm", ["gone", "flipped"])
def test_a_damaged_part_is_not_merged_and_not_hidden(cohort: Store, harm: str) -> None:
    path = cohort.path(METRICS, "b")
    if harm == "gone":
        path.unlink()
    else:
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 4
        path.write_bytes(whole)
    merge(cohort)
    part = cohort.part(METRICS, "b")
    assert part
    assert cohort.verify(part) is not None
    for slide_id in "acd":
        cohort.read(METRICS, slide_id)


def test_a_part_replaced_while_it_is_merged_is_not_lost(cohort: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written = maintenance.write_parquet

    def write_and_replace(path: Path, table: Any, *args: Any, **options: Any) -> int:
        if table.name == METRICS:
            write_metrics(cohort, metrics(4, 7.0, "b"), "b", made_from(3))
        return written(path, table, *args, **options)

    monkeypatch.setattr(maintenance, "write_parquet", write_and_replace)
    before = contents(cohort)
    assert merge(cohort) == (4 * (len(FILES) - 1), len(FILES) - 1)
    assert set(cohort.read(METRICS, "b")["mse"].to_pylist()) == {7.0}
    assert {k for k, v in contents(cohort).items() if before[k] != v} == {(METRICS, "b")}
    assert not any(f"/{METRICS}/{MERGED}/" in f for f in files(cohort)), "its file is not left behind"


def test_parts_of_an_earlier_program_without_todays_columns_are_merged(
    cohort: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that came later is not in the files of before."""
    from dataclasses import replace

    from stpath_assets.storage import store as storage
    from stpath_assets.tables import EVALUATION_METRICS, TABLES

    schema = EVALUATION_METRICS.schema
    older = replace(EVALUATION_METRICS, schema=schema.remove(schema.get_field_index("r2")))
    with monkeypatch.context() as patch:
        patch.setitem(TABLES, METRICS, older)
        patch.setattr(storage.schema, "is_up", lambda *_: True)
        patch.setattr(storage.schema, "bring_up", lambda *_: None)
        patch.setattr(storage.schema, "complete", lambda *_: None)
        cohort.write(METRICS, "b", metrics(3, 7.0, "b").drop_columns(["r2"]), made_from(3))
    seen = views(cohort)
    merge(cohort)
    assert views(cohort) == seen
    assert cohort.read(METRICS, "b")["mse"].to_pylist() == [7.0] * 3


# ---- expire and clean


def test_an_earlier_state_is_read_while_it_is_kept_and_its_files_go_with_it(cohort: Store) -> None:
    old = cohort.path(METRICS, "a")
    earlier = version(cohort)
    write_metrics(cohort, metrics(3, 6.0, "a"), "a", made_from(3))
    merge(cohort)
    past = f"select count(*) from {METRICS} where slide_id = 'a' and mse = 6"
    maintain(cohort, DAY, NOW, NOW)
    assert old.exists()
    assert plain_client(cohort.home, at=earlier).execute(past).fetchall() == [(0,)]
    assert plain_client(cohort.home).execute(past).fetchall() == [(3,)]
    state, seen = contents(cohort), views(cohort)
    done = maintain(cohort, NOW, NOW, DAY)
    assert done.expired > 0
    assert done.removed >= 4 * len(FILES)
    assert done.removed_bytes > 0
    assert not old.exists()
    assert files(cohort) == {p.file for p in cohort.parts() if p.file}
    assert contents(cohort) == state
    assert views(cohort) == seen
    assert contents(Store(cohort.home)) == state


def test_files_stay_for_the_grace_after_their_snapshot(cohort: Store) -> None:
    old = cohort.path(METRICS, "a")
    write_metrics(cohort, metrics(3, 6.0, "a"), "a", made_from(3))
    maintain(cohort, NOW, DAY, NOW)
    assert old.exists(), "a query that began before may still read it"
    maintain(cohort, NOW, NOW, NOW)
    assert not old.exists()


def test_unknown_files_go_when_they_are_old(cohort: Store) -> None:
    folder = cohort.path(METRICS, "a").parent
    own, host = f".x.parquet.{socket.gethostname()}", f".x.parquet.{socket.gethostname()}-2"
    names = {
        "orphan.parquet": True,
        "notes.txt": True,
        f"{own}.999999999.0.tmp": True,
        f"{host}.999999999.0.tmp": True,
        f"{own}.{os.getpid()}.0.tmp": False,
    }
    for name in names:
        (folder / name).write_text("x")
    clean(cohort, NOW, DAY)
    assert {n for n in names if (folder / n).exists()} == set(names), "young ones stay"
    for name in names:
        os.utime(folder / name, (0, 0))
    registered = files(cohort) - {f for f in files(cohort) if f.rpartition("/")[2] in names}
    removed, size = clean(cohort, NOW, DAY)
    assert (removed, size) == (4, 4)
    assert {n for n in names if (folder / n).exists()} == {n for n, goes in names.items() if not goes}
    assert registered <= files(cohort), "old files that the lake names stay"


def test_a_finished_file_that_is_young_is_still_adopted_after_maintenance(cohort: Store) -> None:
    with killed_before_registration(cohort):
        write_metrics(cohort, metrics(3, 6.0, "a"), "a", made_from(8))
    maintain(cohort, NOW, NOW, DAY)
    assert cohort.is_current(METRICS, "a", made_from(8))
    assert set(cohort.read(METRICS, "a")["mse"].to_pylist()) == {6.0}


def test_one_maintenance_at_a_time(cohort: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from stpath_assets.storage.locks import lock

    monkeypatch.setattr(maintenance, "_WAIT_S", 0.2)
    with lock(cohort.home / "locks" / "maintain.lock", 0, "maintenance"):
        with pytest.raises(StorageError, match=r"^maintenance is held by process \d+"):
            maintain(cohort, NOW)


def test_maintenance_of_a_root_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such data root"):
        maintain(Store(tmp_path / "root"), NOW)
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_does_not_keep_what_is_forgotten(cohort: Store) -> None:
    """Else each run of a slide would leave its rows of the register behind for good."""
    for n in range(10, 16):
        write_metrics(cohort, metrics(2, 1.0, "a"), "a", made_from(n))
        register(cohort, "b")
    maintain(cohort, NOW, NOW, NOW)
    meta = "__ducklake_metadata_lake"
    tables = cohort.rows(f"select table_name from {meta}.ducklake_inlined_data_tables")
    dead = {t: cohort.rows(f"select count(*) from {meta}.{t} where end_snapshot is not null")[0][0] for (t,) in tables}
    assert {t: n for t, n in dead.items() if n} == {}


def test_only_fingerprints_of_no_part_are_forgotten(cohort: Store) -> None:
    for n in (10, 11, 12):
        write_metrics(cohort, metrics(2, 1.0, "a"), "a", made_from(n))
    before = {t: cohort.facts(t) for t in sorted(PART_TABLES)}
    maintain(cohort, timedelta(days=30), NOW, NOW)
    digests = cohort.rows("select digest from lake.parts.fingerprints")
    assert set(digests) == set(cohort.rows("select digest from lake.parts.lineage"))
    assert {t: cohort.facts(t) for t in sorted(PART_TABLES)} == before


# ---- beside others, and killed


def write_on(root: Path, writer: int, ready: Any) -> None:
    store = Store(root)
    store.open()
    ready.send("open")
    for n in range(8):
        slide_id = "abcd"[(n + writer) % 4] if writer == 0 else f"new{n}"
        write_metrics(store, metrics(3, 100.0 + n, slide_id), slide_id, made_from(100 + n))


def test_maintenance_beside_a_writer_loses_nothing(cohort: Store) -> None:
    before = contents(cohort)
    pipes = [pipe(), pipe()]
    writers = [child(write_on, cohort.home, w, send) for w, (_, send) in enumerate(pipes)]
    assert all(receive.poll(30) for receive, _ in pipes)
    rounds = 0
    while any(w.is_alive() for w in writers):
        maintain(cohort, NOW, timedelta(seconds=30), DAY)
        rounds += 1
    assert joined(*writers) == [0, 0]
    assert rounds, "maintenance began beside the writers"
    after = contents(cohort)
    wanted = {"abcd"[n % 4]: 100.0 + n for n in range(8)} | {f"new{n}": 100.0 + n for n in range(8)}
    for slide_id, mse in wanted.items():
        assert set(cohort.read(METRICS, slide_id)["mse"].to_pylist()) == {mse}
    assert {k: v for k, v in after.items() if k[0] != METRICS} == {k: v for k, v in before.items() if k[0] != METRICS}
    maintain(cohort, NOW, NOW, NOW)
    assert contents(cohort) == after
    assert cohort.rows(f"select count(*) from lake.parts.{METRICS}") == [(12 * 3,)]


def maintain_all(root: Path, ready: Any) -> None:
    maintenance.LEAST_PARTS = 2
    store = Store(root)
    store.open()
    ready.send("open")
    maintain(store, NOW, NOW, NOW)
    ready.send("done")


def moments(n: int, span_s: float) -> Iterator[float]:
    """Random moments, one in each of n equal parts of a span."""
    rng = random.Random(18)
    return (span_s * (i + rng.random()) / n for i in range(n))


def state(store: Store) -> Any:
    """All that is asked of a root: its views, its parts and what they were made from. Their files are whole."""
    parts = store.parts()
    assert [store.verify(p) for p in {p.file: p for p in parts}.values()].count(None) == len({p.file for p in parts})
    return views(store), [(p.slide_id, p.table, p.digest, p.row_count, p.damaged) for p in parts]


@pytest.mark.soak
def test_maintenance_killed_at_any_moment_loses_nothing(store: Store, tmp_path: Path) -> None:
    cohort = store
    register(cohort, *"abc")
    for slide_id in "abc":
        write_any(cohort, METRICS, slide_id, made_from(1))
        write_any(cohort, PREDICTIONS, slide_id, made_from(1))
    write_metrics(cohort, metrics(3, 6.0, "a"), "a", made_from(3))
    before, values = state(cohort), contents(cohort)
    receive, send = pipe()
    whole = copied(cohort, tmp_path / "whole")
    process = child(maintain_all, whole.home, send)
    assert receive.recv() == "open"
    began = time.monotonic()
    assert receive.recv() == "done"
    span = time.monotonic() - began
    joined(process)
    killed = 0
    for i, moment in enumerate(moments(8, span)):
        store = copied(cohort, tmp_path / f"killed{i}")
        process = child(maintain_all, store.home, send)
        assert receive.recv() == "open"
        time.sleep(moment)
        process.kill()
        killed += joined(process) == [-signal.SIGKILL]
        while receive.poll():
            receive.recv()
        assert state(store) == before, f"killed after {moment:.3f} s of {span:.3f}"
        maintain(store, NOW, NOW, NOW)
        assert state(store) == before
        assert files(store) == {p.file for p in store.parts() if p.file}, "and nothing is left behind"
        assert len(files(store)) == 2
    assert killed >= 4
    assert contents(store) == values
