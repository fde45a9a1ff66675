"""Scans in S3 and in Google Cloud Storage: real drivers, and servers of both protocols on this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest

from stpath_assets.errors import SlideError
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.tiles import tile
from tests.conftest import tissue_image, write_tiff
from tests.slides.drawn import jpeg
from tests.storage.servers import object_store

pytestmark = pytest.mark.server

BUCKET = "scans"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def gs_server() -> Iterator[str]:
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def bucket(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[fsspec.AbstractFileSystem]:
    """A file system with a bucket; what a user sets in the environment to get there is set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = request.getfixturevalue(f"{request.param}_server")
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
    else:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        # Asks Google itself, whatever the address, what kind of bucket it is.
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    fsspec.get_filesystem_class(request.param).clear_instance_cache()
    fs = fsspec.filesystem(request.param)
    yield fs
    fsspec.get_filesystem_class(request.param).clear_instance_cache()


def url_of(fs: fsspec.AbstractFileSystem, name: str) -> str:
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return f"{protocol}://{BUCKET}/{name}"


def test_a_scan_is_read_in_place_block_by_block(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "a.tif", tissue_image(), compression="jpeg", levels=2)
    url = url_of(bucket, "ward 3/a.tif")
    bucket.put_file(str(scan), url)
    with open_slide(url) as there, open_slide(scan) as here:
        assert (there.mpp, there.name, there.uri, there.files) == (here.mpp, "a.tif", url, ())
        assert there.level_dimensions == here.level_dimensions
        assert there.content() == here.content()
        ours, theirs = tile(there), tile(here)
        assert ours.table.equals(theirs.table)
        np.testing.assert_array_equal(next(ours.batches(100)), next(theirs.batches(100)))
    assert not (tmp_path / "cache").exists(), "nothing was copied"


def test_a_scan_is_registered_and_known_again(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    url, registry = url_of(bucket, "a.tif"), Registry(Store(tmp_path / "root"))
    bucket.put_file(str(write_tiff(tmp_path / "a.tif", tissue_image())), url)
    row = registry.add(url, organ="breast")
    assert (row.slide_id, row.uri, row.organ) == ("a", url, "Breast")
    assert registry.refresh("a") == row
    bucket.rm_file(url)
    with pytest.raises(SlideError, match=rf"^{url}: no such file; check the URL$"):
        registry.refresh("a")


def test_what_needs_a_local_file_is_copied_once(bucket: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    image = tissue_image(600, 800)
    url = url_of(bucket, "a.jpg")
    bucket.pipe_file(url, jpeg(image))
    for _ in range(2):
        with open_slide(url, mpp=0.5) as slide:
            assert np.abs(slide.read_level(0, 0, 0, 800, 600).astype(int) - image).mean() < 6
    (copy,) = [p for p in (tmp_path / "cache").rglob("*.jpg") if p.is_file()]
    bucket.pipe_file(url, jpeg(tissue_image(600, 800, seed=1)))
    with open_slide(url, mpp=0.5) as slide:
        assert np.abs(slide.read_level(0, 0, 0, 800, 600).astype(int) - image).mean() > 6, "it was replaced there"
    assert copy.exists()


@pytest.mark.parametrize("name", ["scans/gone.tif", "scans/none/at/all.svs", "no-such-bucket/a.tif"])
def test_what_is_not_there(bucket: fsspec.AbstractFileSystem, name: str) -> None:
    url = url_of(bucket, "").removesuffix("scans/") + name
    with pytest.raises(SlideError, match=rf"^{url}: no such file; check the URL$"):
        open_slide(url)


def test_a_server_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    """Between two blocks: one line that names the scan."""
    scan = write_tiff(tmp_path / "a.tif", tissue_image(), compression="jpeg")
    url = url_of(bucket, "a.tif")
    bucket.put_file(str(scan), url)
    with open_slide(url) as slide:

        def refused(*_: object, **__: object) -> bytes:
            raise ConnectionRefusedError("connection refused")

        monkeypatch.setattr(type(bucket), "_cat_file", refused)
        monkeypatch.setattr(slide._open_backend._file, "read", refused)  # type: ignore[attr-defined]
        with pytest.raises(SlideError, match=r"^a\.tif: level 0 cannot be read .* or cannot be reached") as error:
            slide.read_level(0, 0, 0, 1600, 1200)
    assert "\n" not in str(error.value)
