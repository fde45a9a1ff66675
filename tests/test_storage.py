"""Storage: parts come back as they were written, and whatever goes wrong in mid-write, the old part stands."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.errors import StorageError
from stpath_assets.fingerprint import Fingerprint, start
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION, STPATH_PREDICTIONS

METRICS, SPOTS, PREDICTIONS = EVALUATION_METRICS.name, SPOT_EXPRESSION.name, STPATH_PREDICTIONS.name
FINGERPRINT = start(slide_sha256="0" * 64, slide_mpp=0.5)

Block = tuple[Sequence[str], npt.NDArray]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "root")


def metrics(n: int = 3, mse: float = 0.5) -> pa.Table:
    rows = [
        {"slide_id": "a", "gene": f"G{i:06d}", "model": "stpath", "protocol": "p", "n_spots": i, "mse": mse}
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, EVALUATION_METRICS.schema)


def write_prediction(store: Store, genes: Sequence[str], values: npt.NDArray, slide_id: str = "a") -> Path:
    tiles = np.array([f"r{i:05d}c00000" for i in range(len(values))], object)
    return store.write_by_gene(
        PREDICTIONS, slide_id, {"tile_id": tiles}, [(genes, values)], FINGERPRINT, model="stpath-demo"
    )


def drafts(store: Store) -> list[Path]:
    return list(store.home.rglob(".*.tmp"))


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program in a new process. Its first argument is the data root."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=60, **options
    )


# ---- what is written comes back


def test_rows_come_back_with_their_fingerprint(store: Store) -> None:
    path = store.write(METRICS, "a", metrics(), FINGERPRINT)
    assert path == store.home / "tables" / "evaluation_metrics" / "a.parquet"
    assert store.read(METRICS, "a").equals(metrics())
    assert store.read(METRICS, "a", ["gene"]).column_names == ["gene"]
    assert store.fingerprint(METRICS, "a") == FINGERPRINT
    assert store.row_count(METRICS, "a") == 3
    assert pq.read_schema(path).metadata[b"stpath_fingerprint"].decode() == FINGERPRINT.digest


GENES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), unique=True, max_size=12
).map(sorted)


@settings(max_examples=40, deadline=None)
@given(genes=GENES, n=st.integers(1, 5), cuts=st.lists(st.integers(0, 12), max_size=3), seed=st.integers(0, 99))
def test_predictions_of_any_genes_come_back(
    tmp_path_factory: pytest.TempPathFactory, genes: list[str], n: int, cuts: list[int], seed: int
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    values = np.random.default_rng(seed).standard_normal((n, len(genes))).astype(np.float32)
    tiles = np.array([f"tile {i}" for i in range(n)], object)
    edges = [0, *sorted(min(c, len(genes)) for c in cuts), len(genes)]
    blocks = [(genes[a:b], values[:, a:b]) for a, b in pairwise(edges)]
    store.write_by_gene(PREDICTIONS, "a", {"tile_id": tiles}, blocks, FINGERPRINT, model="stpath")
    part = store.read_by_gene(PREDICTIONS, "a")
    assert part.genes == genes
    assert part.keys["tile_id"].tolist() == tiles.tolist()
    np.testing.assert_array_equal(part.values, values)
    assert part.values.dtype == np.float32
    assert store.row_count(PREDICTIONS, "a") == n * len(genes)
    some = store.read_by_gene(PREDICTIONS, "a", [*genes[::-2], "no such gene"])
    wanted = [i for i, g in enumerate(genes) if g in set(genes[::-2])]
    assert some.genes == [genes[i] for i in wanted]
    np.testing.assert_array_equal(some.values, values[:, wanted])


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
    first = store.write(METRICS, "a", metrics(), FINGERPRINT).read_bytes()
    assert Store(tmp_path / "other").write(METRICS, "a", metrics(), FINGERPRINT).read_bytes() == first


# ---- which parts there are, and whether they are up to date


def test_a_part_is_current_when_its_fingerprint_is(store: Store) -> None:
    assert not store.is_current(METRICS, "a", FINGERPRINT)
    path = store.write(METRICS, "a", metrics(), FINGERPRINT)
    os.utime(path, (0, 0))
    assert store.is_current(METRICS, "a", Fingerprint(dict(reversed(FINGERPRINT.facts.items()))))
    assert not store.is_current(METRICS, "a", FINGERPRINT.extend("x", "1"))


def test_slide_ids_are_sorted_and_drafts_are_none(store: Store) -> None:
    for slide_id in ("b", "a.2", "A-1"):
        store.write(METRICS, slide_id, metrics(), FINGERPRINT)
    (store.home / "tables" / METRICS / ".c.parquet.host.1.x.tmp").touch()
    (store.home / "tables" / METRICS / ".d.parquet").touch()
    assert store.slide_ids(METRICS) == ["A-1", "a.2", "b"]
    assert store.slide_ids(SPOTS) == []


@pytest.mark.parametrize("slide_id", ["", ".a", "-a", "../a", "a/b", "a..b", "a b", "a\n", "ä", "a" * 121, "a\0"])
def test_what_is_no_slide_id_never_becomes_a_path(store: Store, slide_id: str) -> None:
    with pytest.raises(StorageError, match="is no slide_id"):
        store.path(METRICS, slide_id)


def test_what_is_absent_is_named_with_its_remedy(store: Store) -> None:
    assert store.fingerprint(METRICS, "a") is None
    for ask in (store.require, store.read, store.row_count):
        with pytest.raises(StorageError, match=r"^a: has no evaluation_metrics yet; run: stpath-assets run a$"):
            ask(METRICS, "a")
    with pytest.raises(StorageError, match="has no stpath_predictions yet"):
        store.read_by_gene(PREDICTIONS, "a")


@pytest.mark.parametrize("keep", [0, 3, 4, 100, 0.5, 0.9, -1])
def test_a_truncated_part_is_damaged_and_made_again(store: Store, keep: float) -> None:
    path = write_prediction(store, ["A", "B"], np.ones((50, 2), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)] if isinstance(keep, float) else whole[:keep])
    for ask in (store.read, store.fingerprint, store.require, store.read_by_gene, store.row_count):
        with pytest.raises(StorageError, match=r"a\.parquet: is damaged") as error:
            ask(PREDICTIONS, "a")
        assert "\n" not in str(error.value)
    assert not store.is_current(PREDICTIONS, "a", FINGERPRINT)
    write_prediction(store, ["A", "B"], np.ones((50, 2), np.float32))
    assert path.read_bytes() == whole


def test_a_parquet_file_of_something_else_is_damaged(store: Store) -> None:
    path = store.write(METRICS, "a", metrics(), FINGERPRINT)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(StorageError, match="is damaged"):
        store.require(METRICS, "a")


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


def test_an_error_in_the_first_write_leaves_nothing(store: Store) -> None:
    tiles = {"tile_id": np.array(["a", "b"], object)}
    with pytest.raises(RuntimeError):
        store.write_by_gene(PREDICTIONS, "a", tiles, failing_blocks(), FINGERPRINT, model="stpath")
    assert list((store.home / "tables" / PREDICTIONS).iterdir()) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.fingerprint import start
    from stpath_assets.storage import Store

    def blocks():
        for i in range(2000):
            if i == 1500:
                os.kill(os.getpid(), signal.SIGKILL)
            yield [f"G{i:05d}"], np.full((50, 1), i, np.float32)

    tiles = {"tile_id": np.array([f"t{i}" for i in range(50)], object)}
    Store(Path(sys.argv[1])).write_by_gene("stpath_predictions", "a", tiles, blocks(), start(), model="stpath")
"""


def test_a_killed_writer_leaves_the_old_part_and_its_draft_goes_with_the_next_write(store: Store) -> None:
    before = write_prediction(store, ["A"], np.zeros((2, 1), np.float32)).read_bytes()
    assert run_python(KILLED, str(store.home)).returncode == -signal.SIGKILL
    assert len(drafts(store)) == 1
    assert drafts(store)[0].stat().st_size > 0
    assert store.path(PREDICTIONS, "a").read_bytes() == before
    assert store.slide_ids(PREDICTIONS) == ["a"]
    write_prediction(store, ["A"], np.ones((2, 1), np.float32), slide_id="b")
    assert len(drafts(store)) == 1, "a write of another part leaves it alone"
    write_prediction(store, ["A"], np.ones((2, 1), np.float32))
    assert drafts(store) == []
    assert store.read_by_gene(PREDICTIONS, "a").values.tolist() == [[1], [1]]


def test_drafts_of_living_writers_and_other_hosts_are_left_alone(store: Store) -> None:
    folder = store.write(METRICS, "a", metrics(), FINGERPRINT).parent
    alive = folder / f".a.parquet.{socket.gethostname()}.{os.getpid()}.00000000.tmp"
    elsewhere = folder / f".a.parquet.{socket.gethostname()}-2.999999.00000000.tmp"
    alive.touch()
    elsewhere.touch()
    store.write(METRICS, "a", metrics(), FINGERPRINT)
    assert sorted(drafts(store)) == sorted([alive, elsewhere])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_the_old_part_stands(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    before = store.write(METRICS, "a", metrics(), FINGERPRINT).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match=r"a\.parquet: cannot be written, the disk is full; .* unchanged") as error:
        store.write(METRICS, "a", metrics(mse=1.0), FINGERPRINT)
    assert "\n" not in str(error.value)
    assert store.path(METRICS, "a").read_bytes() == before
    assert drafts(store) == []


def test_a_disk_that_is_full_only_at_fsync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.write(METRICS, "a", metrics(), FINGERPRINT).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        store.write(METRICS, "a", metrics(mse=1.0), FINGERPRINT)
    assert store.path(METRICS, "a").read_bytes() == before
    assert drafts(store) == []


LIMITED = """
    import sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.errors import StorageError
    from stpath_assets.fingerprint import start
    from stpath_assets.storage import Store

    values = np.random.default_rng(0).standard_normal((2000, 100)).astype(np.float32)
    tiles = {"tile_id": np.array([f"t{i}" for i in range(2000)], object)}
    genes = [f"G{i:03d}" for i in range(100)]
    try:
        Store(Path(sys.argv[1])).write_by_gene("stpath_predictions", "a", tiles, [(genes, values)], start(), model="m")
    except StorageError as e:
        print(e)
"""


def test_a_write_that_the_system_cuts_short(store: Store) -> None:
    """The limit on a file's size fails a real write in its middle, as a full disk does."""
    before = write_prediction(store, ["A"], np.zeros((2, 1), np.float32)).read_bytes()
    limit = 100_000
    result = run_python(
        LIMITED, str(store.home), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "a.parquet: cannot be written" in result.stdout
    assert store.path(PREDICTIONS, "a").read_bytes() == before
    assert drafts(store) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the data root should be")
    with pytest.raises(StorageError, match=r"cannot be written, (Not a directory|File exists)"):
        Store(tmp_path / "root").write(METRICS, "a", metrics(), FINGERPRINT)


WRITER = """
    import sys
    from pathlib import Path
    import numpy as np
    from stpath_assets.fingerprint import start
    from stpath_assets.storage import Store

    home, value = Path(sys.argv[1]), int(sys.argv[2])
    store, genes = Store(home), [f"G{i:03d}" for i in range(200)]
    tiles = {"tile_id": np.array([f"t{i}" for i in range(100)], object)}
    values = np.full((100, 200), value, np.float32)
    for _ in range(25):
        store.write_by_gene("stpath_predictions", "a", tiles, [(genes, values)], start(value=value), model="stpath")
"""


def test_two_writers_at_once_leave_whole_files(store: Store) -> None:
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
    assert drafts(store) == []


def test_a_reader_of_the_old_part_keeps_it(store: Store) -> None:
    old = pq.ParquetFile(store.write(METRICS, "a", metrics(mse=0.5), FINGERPRINT))
    store.write(METRICS, "a", metrics(mse=0.75), FINGERPRINT)
    assert set(old.read()["mse"].to_pylist()) == {0.5}
    assert set(store.read(METRICS, "a")["mse"].to_pylist()) == {0.75}


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
