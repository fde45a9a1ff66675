"""Storage: parts come back as they were written, and whatever goes wrong in mid-write, the old part stands."""

import errno
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpath_assets.errors import SlideError, StorageError
from stpath_assets.storage import Store, atomic_file
from stpath_assets.storage.by_gene import ROW_GROUP
from stpath_assets.storage.fingerprint import Fingerprint, start
from stpath_assets.storage.lake import Cursor
from stpath_assets.storage.maintenance import maintain
from stpath_assets.storage.schema import LAYOUT
from tests.roots import copied
from tests.storage.parts import (
    FEATURES,
    FINGERPRINT,
    METRICS,
    PREDICTIONS,
    SPOTS,
    THROUGHPUT,
    TILES,
    any_rows,
    content,
    drafts,
    files,
    killed_before_registration,
    made_from,
    metrics,
    plain_client,
    register,
    run_python,
    write_any,
    write_metrics,
    write_prediction,
)

Block = tuple[Sequence[str], npt.NDArray]


# ---- what is written comes back


def test_rows_come_back_with_their_fingerprint(store: Store) -> None:
    path = write_metrics(store, metrics())
    assert path == store.home / "tables" / "parts" / METRICS / "a" / f"{FINGERPRINT.digest}.parquet"
    assert store.read(METRICS, "a").equals(metrics())
    assert store.read(METRICS, "a", ["gene"]).column_names == ["gene"]
    assert store.fingerprint(METRICS, "a") == FINGERPRINT
    assert store.row_count(METRICS, "a") == 3
    assert store.facts(METRICS) == {"a": FINGERPRINT.to_json()}
    assert pq.read_schema(path).metadata[b"stpath_fingerprint"].decode() == FINGERPRINT.digest


@pytest.mark.parametrize("table", [TILES, FEATURES, THROUGHPUT, METRICS])
def test_rows_of_each_table_come_back(store: Store, table: str) -> None:
    store.write(table, "a", any_rows(table), FINGERPRINT, {"dropped": 3})
    assert store.read(table, "a").to_pylist() == any_rows(table).to_pylist()
    assert store.read(table, "a").schema.equals(any_rows(table).schema)
    assert store.summary(table, "a") == {"dropped": 3}


GENES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), unique=True, max_size=12
).map(sorted)


FEW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(genes=GENES, n=st.integers(1, 5), cuts=st.lists(st.integers(0, 12), max_size=3), seed=st.integers(0, 99))
def test_predictions_of_any_genes_come_back(store: Store, genes: list[str], n: int, cuts: list[int], seed: int) -> None:
    fingerprint = start(example=uuid.uuid4().hex)
    values = np.random.default_rng(seed).standard_normal((n, len(genes))).astype(np.float32)
    tiles = np.array([f"tile {i}" for i in range(n)], object)
    edges = [0, *sorted(min(c, len(genes)) for c in cuts), len(genes)]
    blocks = [(genes[a:b], values[:, a:b]) for a, b in pairwise(edges)]
    store.write_by_gene(PREDICTIONS, "a", {"tile_id": tiles}, blocks, fingerprint, model="stpath")
    part = store.read_by_gene(PREDICTIONS, "a")
    assert part.genes == genes
    assert part.keys["tile_id"].tolist() == tiles.tolist()
    np.testing.assert_array_equal(part.values, values)
    assert part.values.dtype == np.float32
    assert store.row_count(PREDICTIONS, "a") == n * len(genes)
    read = list(store.read_blocks(PREDICTIONS, "a"))
    assert [gene for block in read for gene in block.genes] == genes
    np.testing.assert_array_equal(np.concatenate([np.empty((n, 0)), *(b.values for b in read)], axis=1), values)
    assert all(block.keys["tile_id"].tolist() == tiles.tolist() for block in read)
    some = store.read_by_gene(PREDICTIONS, "a", [*genes[::-2], "no such gene"])
    wanted = [i for i, g in enumerate(genes) if g in set(genes[::-2])]
    assert some.genes == [genes[i] for i in wanted]
    np.testing.assert_array_equal(some.values, values[:, wanted])


ROWS = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(-(2**63), 2**63 - 1),
              st.none() | st.floats(allow_nan=False), st.floats(allow_nan=False)), min_size=1, max_size=6)  # fmt: skip


@FEW
@given(rows=ROWS)
def test_any_rows_come_back(store: Store, rows: list[tuple[str, int, float | None, float]]) -> None:
    names = ("gene", "n_spots", "pearson_r", "mse")
    listed = [{"slide_id": "a", "model": "m", "protocol": "p", **dict(zip(names, r, strict=True))} for r in rows]
    table = pa.Table.from_pylist(listed, metrics().schema)
    store.write(METRICS, "a", table, start(example=uuid.uuid4().hex))
    assert store.read(METRICS, "a").equals(table)
    assert store.row_count(METRICS, "a") == len(rows)


def test_counts_come_back_with_all_their_keys(store: Store) -> None:
    keys = {
        "spot_id": np.array(["1x1", "1x2"], object),
        "x_px": np.array([1.25, 7.5]),
        "y_px": np.array([2.0, 1e6]),
    }
    counts = np.array([[0, 3], [2**31 - 1, 1]], np.int32)
    store.write_by_gene(SPOTS, "a", keys, [(["A", "B"], counts)], FINGERPRINT)
    part = store.read_by_gene(SPOTS, "a")
    assert {k: v.tolist() for k, v in part.keys.items()} == {k: v.tolist() for k, v in keys.items()}
    np.testing.assert_array_equal(part.values, counts)


def test_more_genes_than_a_row_group(store: Store) -> None:
    genes = [f"G{i:04d}" for i in range(300)]
    values = np.arange(1500, dtype=np.float32).reshape(5, 300)
    path = write_prediction(store, genes, values)
    assert pq.read_metadata(path).num_row_groups >= 4
    np.testing.assert_array_equal(store.read_by_gene(PREDICTIONS, "a", ["G0250"]).values, values[:, [250]])


@pytest.mark.parametrize("genes", [["B", "A"], ["A", "A"], [""], ["b", "B"]])
def test_genes_out_of_order_are_refused(store: Store, genes: list[str]) -> None:
    with pytest.raises(ValueError, match="genes out of order"):
        write_prediction(store, genes, np.zeros((2, len(genes)), np.float32))
    assert store.slide_ids(PREDICTIONS) == []
    assert drafts(store) == []


def test_a_block_of_another_shape_is_refused(store: Store) -> None:
    tiles = {"tile_id": np.array(["a", "b"], object)}
    with pytest.raises(ValueError, match="shape"):
        store.write_by_gene(PREDICTIONS, "a", tiles, [(["A"], np.zeros((3, 1)))], FINGERPRINT, model="stpath")
    assert store.slide_ids(PREDICTIONS) == []


def test_rows_of_another_schema_are_refused(store: Store) -> None:
    with pytest.raises((ValueError, pa.ArrowException)):
        store.write(METRICS, "a", metrics().drop_columns(["gene"]), FINGERPRINT)
    with pytest.raises((ValueError, pa.ArrowException)):
        store.write(METRICS, "a", metrics().set_column(1, "gene", pa.nulls(3, pa.string())), FINGERPRINT)
    assert store.slide_ids(METRICS) == []
    assert drafts(store) == []


def test_the_same_rows_are_the_same_bytes(store: Store, tmp_path: Path) -> None:
    other = copied(store, tmp_path / "other")
    assert write_metrics(store, metrics()).read_bytes() == write_metrics(other, metrics()).read_bytes()


# ---- which parts there are, and whether they are up to date


def test_a_part_is_current_when_its_fingerprint_is(store: Store) -> None:
    assert not store.is_current(METRICS, "a", FINGERPRINT)
    os.utime(write_metrics(store, metrics()), (0, 0))
    assert store.is_current(METRICS, "a", Fingerprint(dict(reversed(FINGERPRINT.facts.items()))))
    assert not store.is_current(METRICS, "a", FINGERPRINT.extend("x", "1"))
    assert not store.is_current(METRICS, "b", FINGERPRINT)


def test_slide_ids_are_sorted(store: Store) -> None:
    for slide_id in ("b", "a.2", "A-1"):
        write_metrics(store, metrics(slide_id=slide_id), slide_id)
    assert store.slide_ids(METRICS) == ["A-1", "a.2", "b"]
    assert store.slide_ids(SPOTS) == []


@pytest.mark.parametrize("slide_id", ["", ".a", "-a", "../a", "a/b", "a..b", "a b", "a\n", "ä", "a" * 121, "a\0"])
def test_what_is_no_slide_id_never_becomes_a_path(store: Store, slide_id: str) -> None:
    with pytest.raises(StorageError, match="is not a slide_id"):
        store.write(METRICS, slide_id, metrics(), FINGERPRINT)
    for ask in (store.part, store.fingerprint, store.read, store.row_count):
        with pytest.raises(StorageError, match="is not a slide_id"):
            ask(METRICS, slide_id)
    assert files(store) == set()


def test_what_is_absent_is_named_with_its_remedy(store: Store) -> None:
    assert store.fingerprint(METRICS, "a") is None
    assert store.part(METRICS, "a") is None
    assert store.row_count(METRICS, "a") == 0
    for ask in (store.require, store.read, store.summary):
        with pytest.raises(StorageError, match=r"^a: has no evaluation_metrics yet; run: stpath-assets run a$"):
            ask(METRICS, "a")
    with pytest.raises(StorageError, match="has no stpath_predictions yet"):
        store.read_by_gene(PREDICTIONS, "a")
    with pytest.raises(StorageError, match="has no gigapath_throughput yet"):
        store.read(THROUGHPUT, "a")


@pytest.mark.parametrize("keep", [0, 3, 4, 100, 0.5, 0.9, -1])
def test_a_truncated_part_is_damaged_and_made_again(store: Store, keep: float) -> None:
    path = write_prediction(store, ["A", "B"], np.ones((50, 2), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)] if isinstance(keep, float) else whole[:keep])
    assert not store.is_current(PREDICTIONS, "a", FINGERPRINT)
    for ask in (store.read, store.read_by_gene):
        with pytest.raises(StorageError, match=r"^a: stpath_predictions: its file is damaged: .*run a$") as error:
            ask(PREDICTIONS, "a")
        assert "\n" not in str(error.value)
    assert store.fingerprint(PREDICTIONS, "a") == FINGERPRINT, "what it was made from is known all the same"
    write_prediction(store, ["A", "B"], np.ones((50, 2), np.float32))
    assert store.is_current(PREDICTIONS, "a", FINGERPRINT)
    assert store.path(PREDICTIONS, "a").read_bytes() == whole


def test_a_damaged_part_of_the_same_size_is_not_current_once_it_was_read(store: Store) -> None:
    path = write_metrics(store, metrics())
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(StorageError, match="is damaged"):
        store.read(METRICS, "a")
    assert not Store(store.home).is_current(METRICS, "a", FINGERPRINT)
    write_metrics(store, metrics())
    assert Store(store.home).is_current(METRICS, "a", FINGERPRINT)
    assert store.read(METRICS, "a").equals(metrics())


def test_a_parquet_file_of_something_else_is_damaged(store: Store) -> None:
    pq.write_table(pa.table({"x": [1]}), write_metrics(store, metrics()))
    with pytest.raises(StorageError, match="is damaged"):
        store.read(METRICS, "a")


def test_a_part_deleted_by_hand_is_not_current_and_made_again(store: Store) -> None:
    write_metrics(store, metrics()).unlink()
    assert not store.is_current(METRICS, "a", FINGERPRINT)
    (part,) = store.parts("a")
    assert store.verify(part) == "its file is gone"
    with pytest.raises(StorageError, match=r"^a: evaluation_metrics: its file is gone; make it again: .* run a$"):
        store.read(METRICS, "a")
    write_metrics(store, metrics())
    assert store.read(METRICS, "a").equals(metrics())
    maintain(store, timedelta(0), timedelta(0), timedelta(0))
    assert store.read(METRICS, "a").equals(metrics()), "what is forgotten of the first does not take the second along"
    assert len(files(store)) == 1


def test_a_part_whose_file_comes_back_is_current_again(store: Store) -> None:
    """As where the tables lie on a mount that was away."""
    path = write_metrics(store, metrics())
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(StorageError, match="its file is gone"):
        store.read(METRICS, "a")
    away.rename(path)
    assert store.is_current(METRICS, "a", FINGERPRINT)
    assert store.read(METRICS, "a").equals(metrics())


# ---- what happens in mid-write


def failing_blocks() -> Iterator[Block]:
    yield ["A"], np.ones((2, 1), np.float32)
    raise RuntimeError("the model failed")


def test_an_error_in_mid_write_leaves_the_old_part_and_no_draft(store: Store) -> None:
    before = write_prediction(store, ["A"], np.zeros((2, 1), np.float32)).read_bytes()
    tiles = {"tile_id": np.array(["a", "b"], object)}
    with pytest.raises(RuntimeError, match="the model failed"):
        store.write_by_gene(PREDICTIONS, "a", tiles, failing_blocks(), FINGERPRINT, model="stpath")
    assert store.path(PREDICTIONS, "a").read_bytes() == before
    assert drafts(store) == []
    assert len(files(store)) == 1


def test_an_error_in_the_first_write_leaves_nothing(store: Store) -> None:
    tiles = {"tile_id": np.array(["a", "b"], object)}
    with pytest.raises(RuntimeError):
        store.write_by_gene(PREDICTIONS, "a", tiles, failing_blocks(), FINGERPRINT, model="stpath")
    assert files(store) == set()
    assert store.parts() == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.storage.fingerprint import start
    from stpath_assets.storage import Store

    def blocks():
        for i in range(2000):
            if i == 1500:
                os.kill(os.getpid(), signal.SIGKILL)
            yield [f"G{i:05d}"], np.full((50, 1), i, np.float32)

    tiles = {"tile_id": np.array([f"t{i}" for i in range(50)], object)}
    made_from = start(slide_sha256="0" * 64, slide_mpp=0.5)
    Store(Path(sys.argv[1])).write_by_gene("stpath_predictions", "a", tiles, blocks(), made_from, model="stpath")
"""


def test_a_killed_writer_leaves_the_old_part_and_its_draft_goes_with_the_next_write(store: Store) -> None:
    before = write_prediction(store, ["A"], np.zeros((2, 1), np.float32), fingerprint=start()).read_bytes()
    assert run_python(KILLED, str(store.home)).returncode == -signal.SIGKILL
    assert len(drafts(store)) == 1
    assert drafts(store)[0].stat().st_size > 0
    assert store.path(PREDICTIONS, "a").read_bytes() == before
    write_prediction(store, ["A"], np.ones((2, 1), np.float32), slide_id="b")
    assert len(drafts(store)) == 1, "a write of another part leaves it alone"
    write_prediction(store, ["A"], np.ones((2, 1), np.float32))
    assert drafts(store) == []
    assert store.read_by_gene(PREDICTIONS, "a").values.tolist() == [[1], [1]]


def test_drafts_of_living_writers_and_other_hosts_are_left_alone(store: Store) -> None:
    folder = store.home / "tables" / "parts" / METRICS / "a"
    folder.mkdir(parents=True)
    name = f"{FINGERPRINT.digest}.parquet"
    alive = folder / f".{name}.{socket.gethostname()}.{os.getpid()}.00000000.tmp"
    elsewhere = folder / f".{name}.{socket.gethostname()}-2.999999.00000000.tmp"
    alive.touch()
    elsewhere.touch()
    write_metrics(store, metrics())
    assert sorted(drafts(store)) == sorted([alive, elsewhere])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_the_old_part_stands(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_metrics(store, metrics())

    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as disk:
        disk.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(StorageError) as error:
            write_metrics(store, metrics(mse=1.0), fingerprint=made_from(2))
    assert str(error.value).endswith("parquet: cannot be written, the disk is full; an earlier file is unchanged")
    assert "\n" not in str(error.value)
    assert store.read(METRICS, "a").equals(metrics())
    assert store.is_current(METRICS, "a", FINGERPRINT)
    assert drafts(store) == []
    write_metrics(store, metrics(mse=1.0), fingerprint=made_from(2))
    assert store.read(METRICS, "a").equals(metrics(mse=1.0))


def test_a_disk_that_is_full_only_at_fsync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metrics(store, metrics())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_metrics(store, metrics(mse=1.0), fingerprint=made_from(2))
    assert store.read(METRICS, "a").equals(metrics())
    assert drafts(store) == []


LIMITED = """
    import sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.errors import StorageError
    from stpath_assets.storage.fingerprint import start
    from stpath_assets.storage import Store

    values = np.random.default_rng(0).standard_normal((2000, 400)).astype(np.float32)
    tiles = {"tile_id": np.array([f"t{i}" for i in range(2000)], object)}
    genes = [f"G{i:03d}" for i in range(400)]
    try:
        Store(Path(sys.argv[1])).write_by_gene("stpath_predictions", "a", tiles, [(genes, values)], start(), model="m")
    except StorageError as e:
        print(e)
"""


def test_a_write_that_the_system_cuts_short(store: Store) -> None:
    """The limit on a file's size fails a real write in its middle, as a full disk does."""
    before = write_prediction(store, ["A"], np.zeros((2, 1), np.float32)).read_bytes()
    limit = 500_000  # lake.sqlite is smaller
    result = run_python(
        LIMITED, str(store.home), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert ".parquet: cannot be written" in result.stdout
    assert store.path(PREDICTIONS, "a").read_bytes() == before
    assert drafts(store) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the data root should be")
    with pytest.raises(
        StorageError, match=r"root: the data root cannot be created \((Not a directory|File exists)\); .*STPATH_HOME"
    ):
        Store(tmp_path / "root").write(METRICS, "a", metrics(), FINGERPRINT)


WRITER = """
    import sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.storage.fingerprint import start
    from stpath_assets.storage import Store

    home, value = Path(sys.argv[1]), int(sys.argv[2])
    store, genes = Store(home), [f"G{i:03d}" for i in range(200)]
    tiles = {"tile_id": np.array([f"t{i}" for i in range(100)], object)}
    values = np.full((100, 200), value, np.float32)
    for _ in range(5):
        store.write_by_gene("stpath_predictions", "a", tiles, [(genes, values)], start(value=value), model="stpath")
"""


def test_two_writers_at_once_leave_whole_parts(store: Store) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(store.home)]
    writers = [subprocess.Popen([*command, str(value)], stderr=subprocess.PIPE) for value in (1, 2)]
    seen = set()
    while any(w.poll() is None for w in writers):
        if store.slide_ids(PREDICTIONS):
            values = store.read_by_gene(PREDICTIONS, "a").values
            assert values.shape == (100, 200)
            seen.add(values[0, 0])
            assert (values == values[0, 0]).all()
    assert [(w.wait(), w.stderr.read()) for w in writers if w.stderr] == [(0, b""), (0, b"")]
    assert seen <= {1.0, 2.0}
    last = store.read_by_gene(PREDICTIONS, "a").values
    assert store.require(PREDICTIONS, "a").facts["value"] == last[0, 0]
    assert store.rows(f"select count(*) from lake.parts.{PREDICTIONS}") == [(201,)]
    assert drafts(store) == []


def test_a_reader_of_the_old_part_keeps_it(store: Store) -> None:
    old = pq.ParquetFile(write_metrics(store, metrics(mse=0.5)))
    write_metrics(store, metrics(mse=0.75), fingerprint=made_from(2))
    assert set(old.read()["mse"].to_pylist()) == {0.5}
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {0.75}


# ---- one stage, one transaction


def in_view(client: Any, slide_id: str = "a") -> tuple[set[Any], set[Any]]:
    """What a client sees of the two tables that `write_both` writes, in one statement."""
    query = "select (select list(distinct mse) from {}), (select list(distinct tiles) from {})".format(
        *(f"(select * from {t} where slide_id = '{slide_id}')" for t in (METRICS, THROUGHPUT))
    )
    ((one, other),) = client.execute(query).fetchall()
    return set(one or ()), set(other or ())


def write_both(store: Store, n: int) -> None:
    took = any_rows(THROUGHPUT, n=1).set_column(6, "tiles", pa.array([n]))
    with store.stage("a", made_from(n)) as stage:
        stage.write(METRICS, metrics(mse=float(n)))
        stage.write(THROUGHPUT, took)


def test_tables_of_one_stage_are_seen_together_or_not_at_all(store: Store) -> None:
    register(store, "a")
    with store.stage("a", made_from(1)) as stage:
        stage.write(METRICS, metrics(mse=1.0))
        stage.write(THROUGHPUT, any_rows(THROUGHPUT))
        assert in_view(plain_client(store.home)) == (set(), set())
        assert store.parts() == []
    assert [(p.table, p.digest) for p in store.parts()] == [
        (METRICS, made_from(1).digest),
        (THROUGHPUT, made_from(1).digest),
    ]


def test_a_stage_that_fails_leaves_all_its_tables_as_they_were(store: Store) -> None:
    register(store, "a")
    write_both(store, 1)

    def failing() -> None:
        with store.stage("a", made_from(2)) as stage:
            stage.write(METRICS, metrics(mse=2.0))
            stage.remove(THROUGHPUT)
            raise RuntimeError("the second table fails")

    with pytest.raises(RuntimeError, match="the second table fails"):
        failing()
    assert in_view(plain_client(store.home)) == ({1.0}, {1})
    assert store.fingerprint(METRICS, "a") == made_from(1)


def test_a_plain_client_reads_one_snapshot_of_all_tables_while_a_store_writes(store: Store) -> None:
    register(store, "a")
    write_both(store, 0)
    client, seen = plain_client(store.home), set()
    code = """
        import sys
        from pathlib import Path
        from stpath_assets.storage import Store
        from tests.storage.test_store import write_both
        for n in range(1, 9):
            sys.stdin.readline()  # until the client has read the write before
            write_both(Store(Path(sys.argv[1])), n)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(store.home)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert writer.stdin
    assert writer.stderr
    while writer.poll() is None:
        (mse,), (tiles,) = in_view(client)
        assert mse == tiles
        if tiles not in seen:
            seen.add(tiles)
            if tiles < 8:
                writer.stdin.write(b"\n")
    assert (writer.wait(), writer.stderr.read()) == (0, b"")
    assert in_view(client) == ({8.0}, {8})
    assert seen >= set(range(8))


def test_a_replaced_part_leaves_the_old_file_for_kept_snapshots(store: Store) -> None:
    register(store, "a")
    old = write_metrics(store, metrics(mse=1.0), fingerprint=made_from(1))
    ((version,),) = store.rows("select max(snapshot_id) from ducklake_snapshots('lake')")
    write_metrics(store, metrics(mse=2.0), fingerprint=made_from(2))
    assert old.exists()
    assert store.rows(f"select distinct mse from lake.main.{METRICS}") == [(2.0,)]
    past = plain_client(store.home, at=version)
    assert past.execute(f"select distinct mse from {METRICS}").fetchall() == [(1.0,)]


def test_a_part_made_again_from_the_same_never_writes_over_the_first(store: Store) -> None:
    first = write_metrics(store, metrics(mse=1.0))
    inode = first.stat().st_ino
    second = write_metrics(store, metrics(mse=2.0))
    assert first != second
    assert first.stat().st_ino == inode
    assert store.read(METRICS, "a").equals(metrics(mse=2.0))


def test_a_replaced_part_is_taken_out_whole(store: Store) -> None:
    """A file whose rows are all deleted is no longer named: nothing is left for later queries to open and filter."""
    for n in range(3):
        write_metrics(store, metrics(), fingerprint=made_from(n))
    meta = "__ducklake_metadata_lake"
    assert store.rows(f"select count(*) from {meta}.ducklake_data_file where end_snapshot is null") == [(1,)]
    assert store.rows(f"select count(*) from {meta}.ducklake_delete_file") == [(0,)]


def test_removed_parts_are_gone_and_others_stay(store: Store) -> None:
    register(store, "a", "b")
    write_both(store, 1)
    write_prediction(store, ["A"], np.ones((2, 1), np.float32))
    write_metrics(store, metrics(slide_id="b"), "b")
    store.remove([METRICS, THROUGHPUT, SPOTS], "a")
    assert [(p.slide_id, p.table) for p in store.parts()] == [("a", PREDICTIONS), ("b", METRICS)]
    assert store.rows(f"select distinct slide_id from lake.main.{METRICS}") == [("b",)]
    assert store.rows(f"select count(*) from lake.main.{THROUGHPUT}") == [(0,)]
    assert not store.is_current(METRICS, "a", made_from(1)), "its file is a kept snapshot's: it is not taken back"
    store.remove([METRICS], "no-such-slide")


def test_a_stage_takes_out_what_it_no_longer_makes(store: Store) -> None:
    write_both(store, 1)
    with store.stage("a", made_from(2)) as stage:
        stage.write(METRICS, metrics(mse=2.0))
        stage.remove(THROUGHPUT)
    assert [p.table for p in store.parts()] == [METRICS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "retired"}, "^a: was retired during the work; nothing was stored"),
        ({"sha256": "1" * 64}, "^a: became another scan during the work; nothing was stored"),
    ],
)
def test_a_slide_that_changes_during_the_work(store: Store, change: dict[str, str], message: str) -> None:
    register(store, "a")
    write_both(store, 1)

    def overtaken() -> None:
        with store.stage("a", made_from(2)) as stage:
            stage.write(METRICS, metrics(mse=2.0))
            register(store, "a", **change)

    with pytest.raises(SlideError, match=message):
        overtaken()
    assert store.fingerprint(METRICS, "a") == made_from(1)
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {1.0}


# ---- files that are finished and not registered


def write_killed(store: Store, table: str, n: int) -> None:
    with killed_before_registration(store):
        write_any(store, table, fingerprint=made_from(n))


@pytest.mark.parametrize("table", [METRICS, FEATURES, PREDICTIONS, SPOTS])
def test_a_finished_file_is_adopted(store: Store, table: str) -> None:
    register(store, "a")
    write_any(store, table, "b", made_from(1))
    write_killed(store, table, 1)
    (file,) = [f for f in files(store) if "/a/" in f]
    assert store.part(table, "a") is None
    assert store.is_current(table, "a", made_from(1))
    part, other = store.part(table, "a"), store.part(table, "b")
    assert part
    assert other
    assert (part.file, part.row_count) == (file, other.row_count)
    assert store.verify(part) is None
    assert store.fingerprint(table, "a") == made_from(1)
    assert store.rows(f"select count(*) from lake.main.{table}") == [(part.row_count,)]
    content(store, table, "a")


def test_an_adopted_file_takes_the_place_of_the_earlier_part(store: Store) -> None:
    register(store, "a")
    write_metrics(store, metrics(mse=99.0), fingerprint=made_from(1))
    write_killed(store, METRICS, 2)
    assert store.is_current(METRICS, "a", made_from(2))
    assert store.rows(f"select count(*) from lake.main.{METRICS} where mse = 99") == [(0,)]


def test_a_finished_file_of_something_else_is_not_adopted(store: Store) -> None:
    write_killed(store, METRICS, 1)
    (path,) = [store.objects.local(f) for f in files(store)]
    path.rename(path.with_name(f"{made_from(2).digest}.parquet"))
    assert not store.is_current(METRICS, "a", made_from(2))
    assert store.parts() == []


def test_a_finished_file_that_is_damaged_is_not_adopted(store: Store) -> None:
    write_killed(store, METRICS, 1)
    (path,) = [store.objects.local(f) for f in files(store)]
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], b"", b"PAR1"):
        path.write_bytes(damaged)
        assert not store.is_current(METRICS, "a", made_from(1))
    assert store.parts() == []


def test_a_file_of_an_earlier_snapshot_is_not_adopted(store: Store) -> None:
    """Its snapshot takes it along when it is forgotten."""
    write_metrics(store, metrics(mse=1.0), fingerprint=made_from(1))
    write_metrics(store, metrics(mse=2.0), fingerprint=made_from(2))
    assert not store.is_current(METRICS, "a", made_from(1))
    assert store.fingerprint(METRICS, "a") == made_from(2)


# ---- the root


def test_a_moved_root_works_at_once(store: Store) -> None:
    register(store, "a")
    for table in (METRICS, PREDICTIONS, SPOTS):
        write_any(store, table)
    before = {t: store.rows(f"select * from lake.main.{t}") for t in (METRICS, PREDICTIONS, SPOTS)}
    root = store.home.rename(store.home.with_name("moved"))
    for table, rows in before.items():
        assert rows
        assert Store(root).rows(f"select * from lake.main.{table}") == rows
        assert plain_client(root).execute(f"select * from {table}").fetchall() == rows
    write_metrics(Store(root), metrics(mse=7.0), fingerprint=made_from(2))
    assert not store.home.exists()
    assert set(Store(root).read(METRICS, "a")["mse"].to_pylist()) == {7.0}


def test_a_new_root_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_metrics(Store(tmp_path / "deep" / "root"), metrics())
    finally:
        os.umask(before)
    root = tmp_path / "deep" / "root"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in root.iterdir() if p.is_dir()} == {
        "tables": "0o700",
        "locks": "0o700",
    }
    for path in root.glob("lake.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_root_that_does_not_exist_is_an_error_and_not_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    for ask in (store.open, store.parts, lambda: store.slide_ids(METRICS), lambda: store.read(METRICS, "a")):
        with pytest.raises(StorageError, match=r"root: no such data root; check --home or STPATH_HOME"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_lake_is_an_error_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    store = Store(tmp_path)
    for ask in (store.open, lambda: store.slide_ids(METRICS)):
        with pytest.raises(StorageError, match=r"holds no slides yet; add one: stpath-assets add SLIDE$"):
            ask()
    assert [p.name for p in tmp_path.rglob("*")] == ["tables"]


def test_a_lake_of_a_newer_program_is_refused_in_one_line(store: Store) -> None:
    write_metrics(store, metrics())
    store.lake.transact(lambda c: c.execute(f"update lake.parts.about set value = '{LAYOUT + 1}' where key = 'layout'"))
    for work in (lambda s: s.parts(), lambda s: s.create(), lambda s: write_metrics(s, metrics())):
        with pytest.raises(
            StorageError, match=rf"was written by a newer version \(layout {LAYOUT + 1}.*upgrade"
        ) as error:
            work(Store(store.home))
        assert "\n" not in str(error.value)
    assert len(files(store)) == 1


def test_a_lake_of_layout_1_is_brought_up_by_the_first_command(store: Store) -> None:
    """Its lineage held the facts."""
    register(store, "a", "b")
    for slide_id in ("a", "b"):
        write_metrics(store, metrics(slide_id=slide_id), slide_id, made_from(1))
    before = store.rows("select * from lake.main.lineage order by all")

    def as_it_was(cursor: Cursor) -> None:
        cursor.execute("alter table lake.parts.lineage add column facts varchar")
        cursor.execute(
            "update lake.parts.lineage l set facts = f.facts from lake.parts.fingerprints f where f.digest = l.digest"
        )
        cursor.execute("drop view lake.main.fingerprints")
        cursor.execute("drop table lake.parts.fingerprints")
        cursor.execute("update lake.parts.about set value = '1' where key = 'layout'")

    store.lake.transact(as_it_was)
    newer = Store(store.home)
    assert newer.rows("select * from lake.main.lineage order by all") == before
    assert newer.fingerprint(METRICS, "a") == made_from(1)
    write_metrics(newer, metrics(4), "a", made_from(2))
    assert newer.facts(METRICS) == {"a": made_from(2).to_json(), "b": made_from(1).to_json()}


def test_foreign_files_among_the_tables_change_nothing(store: Store) -> None:
    register(store, "a", "b")
    path = write_metrics(store, metrics())
    before = store.rows(f"select * from lake.main.{METRICS} order by gene")
    for copy in (path.with_name("copy.parquet"), path.parents[1] / "a.parquet", path.parents[1] / "b" / path.name):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    pq.write_table(pa.table({"x": [1]}), path.parents[1] / "foreign.parquet")
    pq.write_table(pa.table({"x": [1]}), store.home / "tables" / "foreign.parquet")
    fresh = Store(store.home)
    assert fresh.rows(f"select * from lake.main.{METRICS} order by gene") == before
    assert plain_client(store.home).execute(f"select * from {METRICS} order by gene").fetchall() == before
    assert fresh.slide_ids(METRICS) == ["a"]
    assert fresh.read(METRICS, "a").equals(metrics())


def test_another_slides_file_is_not_adopted(store: Store) -> None:
    """A copy of a slide's part under another slide's folder: its rows are not that slide's."""
    register(store, "a", "b")
    path = write_metrics(store, metrics())
    copy = path.parents[1] / "b" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert not store.is_current(METRICS, "b", FINGERPRINT)
    assert store.rows(f"select count(*) from lake.main.{METRICS}") == [(3,)]


def test_a_lake_made_anew_under_the_same_path_is_seen(store: Store, empty_root: Store) -> None:
    """As after a root was removed, or restored from a backup, while this process runs."""
    import shutil

    write_metrics(store, metrics())
    shutil.rmtree(store.home)
    shutil.copytree(empty_root.home, store.home)
    assert store.parts() == []
    assert Store(store.home).parts() == []


def test_a_read_only_statement_cannot_write(store: Store) -> None:
    with pytest.raises(duckdb.Error, match="read-only"):
        plain_client(store.home).execute("delete from l.parts.lineage")


# ---- any file


def test_an_atomic_file_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "x.txt"
    with atomic_file(target) as draft:
        draft.write_text("first")
        assert not target.exists()
        assert draft.parent == target.parent, "a rename is atomic within one folder"
    assert target.read_text() == "first"

    def interrupted() -> None:
        with atomic_file(target) as draft:
            draft.write_text("sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "first"
    assert [p.name for p in target.parent.iterdir()] == ["x.txt"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), atomic_file(tmp_path / "x.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_of_making_a_lake_is_made_up_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The trigger that keeps lake.sqlite small is made after the tables, and before the lake counts as whole."""
    new = Store(tmp_path / "new")

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stpath_assets.storage.schema.keep_few_statistics", killed)
        with pytest.raises(KeyboardInterrupt):
            new.create()
    Store(new.home).create()
    with closing(sqlite3.connect(new.place.sqlite)) as database:
        assert database.execute("select name from sqlite_master where type = 'trigger'").fetchall() == [
            ("stpath_few_statistics",)
        ]
    write_metrics(Store(new.home), metrics())
    assert Store(new.home).read(METRICS, "a").num_rows == 3


def test_some_genes_are_read_without_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = [f"G{i:04}" for i in range(20 * ROW_GROUP)]
    values = np.arange(len(genes), dtype=np.float32)[None]
    keys = {"tile_id": np.array(["t"], object)}
    store.write_by_gene(PREDICTIONS, "a", keys, [(genes, values)], start(x=1), model="stpath")
    read, whole = list[int](), pq.ParquetFile.read_row_group

    def spy(file: pq.ParquetFile, i: int, *rest: Any, **named: Any) -> Any:
        read.append(i)
        return whole(file, i, *rest, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    wanted = [genes[5], genes[6], genes[-1], "A gene before", "Z gene after", "G0005x"]
    found = store.read_by_gene(PREDICTIONS, "a", wanted)
    assert found.genes == [genes[5], genes[6], genes[-1]]
    assert found.values.tolist() == [[5.0, 6.0, len(genes) - 1.0]]
    assert read == [0, 1, 20], "the keys, the first genes and the last"


def test_tables_without_rows_have_statistics(store: Store) -> None:
    store.create()
    meta = "__ducklake_metadata_lake"
    without = f"{meta}.ducklake_table where table_id not in (select table_id from {meta}.ducklake_table_stats)"
    assert store.rows(f"select count(*) from {without}") == [(0,)], "DuckLake asks for missing ones in each query"
    register(store, "a")
    write_any(store, METRICS)
    assert store.rows(f"select count(*), min(slide_id) from lake.main.{METRICS}") == [(4, "a")]
    counted = f"select record_count from {meta}.ducklake_table_stats join {meta}.ducklake_table using (table_id)"
    assert store.rows(f"{counted} where table_name = '{METRICS}'") == [(4,)]
