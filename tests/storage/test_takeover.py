"""A root of version 0.1 is taken into the lake: all that it holds, computing nothing anew, whenever it is killed."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stpath_assets.errors import StorageError
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, takeover
from stpath_assets.storage.fingerprint import Fingerprint, start
from stpath_assets.tables import TABLES
from tests.storage.parts import (
    FEATURES,
    METRICS,
    PREDICTIONS,
    SHA,
    SPOTS,
    THROUGHPUT,
    TILES,
    any_rows,
    files,
    plain_client,
)

SLIDES = ["a", "b.2", "retired"]
NEW_COLUMNS = {"modified_ns", "asked_encoder", "asked_genes", "cohort"}


def write_old(root: Path, table: str, slide_id: str, rows: pa.Table, fingerprint: Fingerprint, **summary: Any) -> Path:
    """A part as version 0.1 stored it: a file a slide, its fingerprint and summary in the file's metadata."""
    path = root / "tables" / table / f"{slide_id}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"stpath_facts": fingerprint.to_json(), "stpath_fingerprint": fingerprint.digest}
    if summary:
        said["stpath_summary"] = json.dumps(summary)
    pq.write_table(
        rows.replace_schema_metadata(said), path, compression="zstd", row_group_size=2, write_page_index=True
    )
    return path


def slide_row(slide_id: str, status: str = "ready") -> pa.Table:
    schema = TABLES["slides"].schema
    known = {
        "slide_id": slide_id, "uri": f"/scans/{slide_id}.tif", "sha256": SHA, "size_bytes": 5, "width_px": 10,
        "height_px": 20, "mpp": 0.5,
        "mpp_source": "user", "backend": "tiffslide", "levels": 2, "organ": "Breast", "status": status, "warnings": ["pale"],
        "registered_at": datetime(2026, 1, 2, tzinfo=UTC), "patient_id": "P1",
    }  # fmt: skip
    return pa.Table.from_pylist([known], pa.schema([f for f in schema if f.name not in NEW_COLUMNS]))


def by_gene_rows(table: str, slide_id: str, values: np.ndarray) -> pa.Table:
    """A by-gene part's rows: the keys first, then a row a gene."""
    spec = TABLES[table]
    assert spec.value
    n, genes = len(values), [f"G{i}" for i in range(values.shape[1])]
    keys = {k: [f"t{i}" for i in range(n)] if k.endswith("_id") else [float(i) for i in range(n)] for k in spec.keys}
    constants = {"slide_id": slide_id} | ({"model": "stpath"} if table == PREDICTIONS else {})
    rows = [constants | keys] + [
        constants | {"gene": g, spec.value: v.tolist()} for g, v in zip(genes, values.T, strict=True)
    ]
    return pa.Table.from_pylist(rows, spec.schema)


def of(slide_id: str, table: str) -> Fingerprint:
    return start(slide_sha256=SHA, slide=slide_id).extend(table, "3.3.2", tile_px=224)


def values_of(slide_id: str, table: str) -> np.ndarray:
    values = np.random.default_rng(len(slide_id) + len(table)).integers(0, 9, (3, 4))
    return values.astype(np.int32 if table == SPOTS else np.float32)


@pytest.fixture
def old_root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for slide_id in SLIDES:
        write_old(
            root,
            "slides",
            slide_id,
            slide_row(slide_id, "retired" if slide_id == "retired" else "ready"),
            start(slide_sha256=SHA),
        )
        for table in (TILES, FEATURES, THROUGHPUT, METRICS):
            rows = any_rows(table, slide_id, 1 if table == THROUGHPUT else 3)
            write_old(root, table, slide_id, rows, of(slide_id, table), dropped=len(slide_id))
        for table in (PREDICTIONS, SPOTS):
            write_old(
                root, table, slide_id, by_gene_rows(table, slide_id, values_of(slide_id, table)), of(slide_id, table)
            )
    (root / "catalog.duckdb").write_bytes(b"what version 0.1 rebuilt")
    (root / "tables" / ".registry.lock").touch()
    (root / "figures" / "a").mkdir(parents=True)
    (root / "figures" / "a" / "x.png").write_bytes(b"png")
    return root


def old_files(root: Path) -> list[str]:
    return sorted(
        p.relative_to(root / "tables").as_posix() for t in TABLES for p in (root / "tables" / t).glob("*.parquet")
    )


def require_all(root: Path) -> None:
    """Everything that `old_root` wrote is there, once, and current."""
    store = Store(root)
    rows = {r.slide_id: r for r in Registry(store).all()}
    assert {s: (r.status, r.organ, r.mpp, r.warnings, r.patient_id, r.registered_at.year) for s, r in rows.items()} == {
        s: ("retired" if s == "retired" else "ready", "Breast", 0.5, ("pale",), "P1", 2026) for s in SLIDES
    }
    for slide_id in SLIDES:
        for table in (TILES, FEATURES, THROUGHPUT, METRICS):
            wanted = any_rows(table, slide_id, 1 if table == THROUGHPUT else 3)
            assert store.read(table, slide_id).to_pylist() == wanted.to_pylist()
            assert store.row_count(table, slide_id) == wanted.num_rows
            assert store.summary(table, slide_id) == {"dropped": len(slide_id)}
        for table in (PREDICTIONS, SPOTS):
            part = store.read_by_gene(table, slide_id)
            np.testing.assert_array_equal(part.values, values_of(slide_id, table))
            assert (part.genes, part.keys[TABLES[table].keys[0]].tolist()) == (
                ["G0", "G1", "G2", "G3"],
                ["t0", "t1", "t2"],
            )
            assert store.row_count(table, slide_id) == 12
        for table in (TILES, FEATURES, THROUGHPUT, METRICS, PREDICTIONS, SPOTS):
            assert store.fingerprint(table, slide_id) == of(slide_id, table)
            assert store.is_current(table, slide_id, of(slide_id, table))
    assert {store.verify(p) for p in store.parts()} == {None}
    counts = {t: store.rows(f"select count(*) from lake.parts.{t}")[0][0] for t in TABLES}
    assert counts == dict.fromkeys(TABLES, 0) | {
        "slides": 3, TILES: 9, FEATURES: 9, THROUGHPUT: 3, METRICS: 9, PREDICTIONS: 15, SPOTS: 15, "lineage": 18,
        "fingerprints": 18,
    }  # fmt: skip


@pytest.mark.parametrize("first", ["open", "create", "rows"])
def test_all_is_taken_in_by_the_first_command(old_root: Path, first: str) -> None:
    inodes = {p.stat().st_ino for t in (TILES, FEATURES, PREDICTIONS) for p in (old_root / "tables" / t).iterdir()}
    store = Store(old_root)
    {"open": store.open, "create": store.create, "rows": lambda: store.rows("select 1")}[first]()
    require_all(old_root)
    assert not (old_root / "catalog.duckdb").exists()
    assert (old_root / "figures" / "a" / "x.png").exists()
    assert inodes <= {store.objects.local(f).stat().st_ino for f in files(store)}, (
        "files were renamed, not written anew"
    )
    assert sorted(p.name for p in (old_root / "tables").iterdir()) == ["parts"]
    assert plain_client(old_root).execute(f"select count(*) from {PREDICTIONS}").fetchall() == [(24,)], (
        "the retired are not shown"
    )


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("before_commit", [True, False])
def test_killed_it_goes_on_from_there(
    old_root: Path, monkeypatch: pytest.MonkeyPatch, after: int, before_commit: bool
) -> None:
    monkeypatch.setattr(takeover, "AT_ONCE", 1)
    registered, n = takeover._register, 0

    def killed(store: Store, found: Any) -> None:
        nonlocal n
        n += 1
        if n <= after:
            return registered(store, found)
        if before_commit:
            monkeypatch.setattr(store.lake, "transact", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        registered(store, found)
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr(takeover, "_register", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(old_root).open()
        assert old_files(old_root), "it was killed in mid-way"
    require_all(old_root)


def test_a_file_that_cannot_be_read_is_left_and_named(old_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables = old_root / "tables"
    bad = {
        f"{METRICS}/torn.parquet": (tables / METRICS / "a.parquet").read_bytes()[:-30],
        f"{TILES}/empty.parquet": b"",
        f"{PREDICTIONS}/text.parquet": b"not Parquet at all",
    }
    for name, content in bad.items():
        (tables / name).write_bytes(content)
    foreign = [
        tables / "slides" / "foreign.parquet",
        tables / SPOTS / "foreign.parquet",
        tables / METRICS / "foreign.parquet",
    ]
    for path in foreign:
        pq.write_table(pa.table({"x": [1]}), path)
    shapeless = pa.Table.from_pylist([{"slide_id": "shapeless", "model": "m"}], TABLES[PREDICTIONS].schema)
    left = [*bad, *(p.relative_to(tables).as_posix() for p in foreign), f"{PREDICTIONS}/shapeless.parquet"]
    write_old(old_root, PREDICTIONS, "shapeless", shapeless, start())
    with caplog.at_level(logging.WARNING):
        Store(old_root).open()
    assert old_files(old_root) == sorted(left)
    for name in left:
        assert f"{tables / name}: is left in place" in caplog.text
    for name in left:
        (tables / name).unlink()
    require_all(old_root)


@pytest.mark.parametrize("table", [METRICS, PREDICTIONS, "slides", THROUGHPUT])
def test_a_backup_copy_is_left_and_its_rows_are_not_counted_twice(
    old_root: Path, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    folder = old_root / "tables" / table
    copies = [folder / "a copy.parquet", folder / "a.bak.parquet"]
    for copy in copies:
        copy.write_bytes((folder / "a.parquet").read_bytes())
    with caplog.at_level(logging.WARNING):
        Store(old_root).open()
    for copy in copies:
        assert copy.exists()
        assert f"{copy}: is left in place" in caplog.text
        copy.unlink()
    require_all(old_root)


def test_a_damaged_part_is_not_taken_as_whole(old_root: Path) -> None:
    """Version 0.1 wrote no checksums of pages; what does not decode is left."""
    path = old_root / "tables" / FEATURES / "a.parquet"
    whole = bytearray(path.read_bytes())
    whole[8:2000] = os.urandom(1992)
    path.write_bytes(whole)
    store = Store(old_root)
    assert not store.is_current(FEATURES, "a", of("a", FEATURES))
    assert path.exists()
    with pytest.raises(StorageError, match=r"^a: has no gigapath_features yet; run: "):
        store.read(FEATURES, "a")


def test_a_file_system_without_links(old_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[Any]()

    def no_links(source: Any, *_: Any, **__: Any) -> None:
        tried.append(source)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    require_all(old_root)
    assert tried, "links come first"


def test_a_new_part_is_not_replaced_by_an_old_file(old_root: Path) -> None:
    """As of a backup that was copied back over a root that is in use."""
    backup = (old_root / "tables" / METRICS / "a.parquet").read_bytes()
    store = Store(old_root)
    newer = start(slide_sha256=SHA, n=2)
    store.write(METRICS, "a", any_rows(METRICS, "a", 2), newer)
    (old_root / "tables" / METRICS).mkdir(exist_ok=True)
    (old_root / "tables" / METRICS / "a.parquet").write_bytes(backup)
    fresh = Store(old_root)
    fresh.create()
    assert fresh.fingerprint(METRICS, "a") == newer
    assert fresh.read(METRICS, "a").num_rows == 2
