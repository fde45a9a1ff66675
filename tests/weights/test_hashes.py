"""Hashes of large files: computed once a file, never believed of another, and no worse for a damaged memory."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stpath_assets.errors import StorageError
from stpath_assets.weights import hashes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stpath-assets" / "sha256.json"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(b"one")
    return tmp_path / "w.bin"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashes.sha256_of(file) == sha(b"one")
    monkeypatch.setattr(hashes, "sha256_of_file", lambda _: pytest.fail("read again"))
    assert hashes.sha256_of(file) == sha(b"one")


def test_another_process_does_not_read_it_either(file: Path) -> None:
    hashes.sha256_of(file)
    code = (
        "import sys; from pathlib import Path; from stpath_assets.weights import hashes\n"
        "hashes.sha256_of_file = None\n"
        "print(hashes.sha256_of(Path(sys.argv[1])))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert ran.stdout.strip() == sha(b"one"), ran.stderr


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_that_changed_is_read_anew(file: Path, change: str) -> None:
    hashes.sha256_of(file)
    stat = file.stat()
    if change == "inode":
        other = file.with_name("other")
        other.write_bytes(b"two")
        other.replace(file)
    else:
        file.write_bytes(b"longer" if change == "size" else b"two")
    after = stat.st_mtime_ns + (change == "time")
    os.utime(file, ns=(stat.st_atime_ns, after))
    assert hashes.sha256_of(file) == sha(file.read_bytes())


def test_what_changed_behind_its_back_is_only_seen_by_computing(file: Path) -> None:
    hashes.sha256_of(file)
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hashes.find_cached(file) == sha(b"one")
    assert hashes.compute(file) == sha(b"two")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"x": 1}', b"\xff\xfe", b"[" * 100_000, b'{"FILE": {"state": [1], "sha256": "no"}}']
)
def test_a_damaged_memory_is_made_again(file: Path, cache: Path, content: bytes) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content.replace(b"FILE", str(file).encode()))
    assert hashes.sha256_of(file) == sha(b"one")
    assert [v["sha256"] for v in json.loads(cache.read_text()).values()] == [sha(b"one")]


def test_a_cache_that_cannot_be_written_stops_nothing(file: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "cache").touch()
    assert hashes.sha256_of(file) == sha(b"one")
    assert not cache.exists()


def test_writers_at_once_lose_nothing(tmp_path: Path, cache: Path) -> None:
    files = [tmp_path / f"{i}.bin" for i in range(24)]
    for i, path in enumerate(files):
        path.write_bytes(bytes([i]))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hashes.sha256_of, files))
    assert found == [sha(bytes([i])) for i in range(24)]
    assert sorted(json.loads(cache.read_text())) == sorted(map(str, files))


def test_files_that_are_gone_are_forgotten(file: Path, tmp_path: Path, cache: Path) -> None:
    hashes.sha256_of(file)
    file.unlink()
    (tmp_path / "b.bin").touch()
    hashes.sha256_of(tmp_path / "b.bin")
    assert list(json.loads(cache.read_text())) == [str(tmp_path / "b.bin")]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        hashes.sha256_of(tmp_path / "none.bin")
