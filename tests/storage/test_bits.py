"""A flipped bit is never silent: what is read is what was written, or an error; and a look at the file finds it."""

import random
import shutil
from pathlib import Path

import pytest

from stpath_assets.errors import StorageError
from stpath_assets.storage import Store, maintenance
from stpath_assets.storage import store as storage
from tests.roots import copied
from tests.storage.parts import FILES, content, register, write_any

FLIPS = 20
"""Flipped bits of each table's file in each layout."""
SLIDES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def own_files(empty_root: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three slides with a part of each table, each in a file of its own."""
    store = copied(empty_root, tmp_path_factory.mktemp("own") / "root")
    register(store, *SLIDES)
    for slide_id in SLIDES:
        for table in FILES:
            write_any(store, table, slide_id)
    return store


@pytest.fixture(scope="module")
def merged_files(own_files: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same, each table in one merged file."""
    store = copied(own_files, tmp_path_factory.mktemp("merged") / "root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "LEAST_PARTS", 2)
        assert maintenance.merge(store) == (len(SLIDES) * len(FILES), len(FILES))
    return store


@pytest.mark.parametrize("layout", ["own_files", "merged_files"])
@pytest.mark.parametrize("table", FILES)
def test_a_flipped_bit_is_never_silent(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, layout: str, table: str
) -> None:
    """Bits spread over the whole file; a value that differs, or a look that finds nothing, would be silent."""
    store: Store = request.getfixturevalue(layout)
    part = store.part(table, "b")
    assert part
    assert part.file
    path, before = store.objects.local(part.file), content(store, table, "b")
    # Each flip is read by a program that has not seen the file before, and leaves the lake as it is.
    monkeypatch.setattr(storage, "_verified", set())
    monkeypatch.setattr(Store, "mark_damaged", lambda *_: None)
    whole = path.read_bytes()
    step = len(whole) * 8 / FLIPS
    chosen = [int(i * step + random.Random(f"{layout}{table}{i}").random() * step) for i in range(FLIPS)]
    silent, said = [], set()
    try:
        for bit in chosen:
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            storage._verified.clear()
            if store.verify(part) is None:
                silent.append(f"bit {bit}: not found")
            try:
                if content(store, table, "b") != before:
                    silent.append(f"bit {bit}: another value")
            except StorageError as e:
                said.add(str(e))
    finally:
        path.write_bytes(whole)
    assert silent == []
    assert [s for s in said if "damaged" not in s or "\n" in s] == []
    assert content(store, table, "b") == before


@pytest.mark.parametrize("table", FILES)
def test_pages_are_checked_even_of_a_file_that_was_found_whole(own_files: Store, tmp_path: Path, table: str) -> None:
    """A program verifies a file once; what rots on the disk after that, the CRCs of the pages find."""
    from pyarrow import parquet as pq

    store = copied(own_files, tmp_path / "root")
    part = store.part(table, "b")
    assert part
    assert part.file
    path, before = store.objects.local(part.file), content(store, table, "b")
    whole, column = path.read_bytes(), pq.read_metadata(path).row_group(0).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    last_byte_of_a_page = start + column.total_compressed_size - 1
    flipped = bytearray(whole)
    flipped[last_byte_of_a_page] ^= 1
    with path.open("r+b") as file:
        file.write(flipped)
    storage._verified.add((store.objects.state(part.file), part.sha256))
    with pytest.raises(StorageError, match=r"its file cannot be read \(OSError\)"):
        content(store, table, "b")
    shutil.rmtree(store.home)
    assert before
