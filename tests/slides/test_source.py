"""Scans at URLs: read in place where the server lets us, from a local copy where not, and stored as given."""

import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from stpath_assets.errors import ScaleError, SlideError
from stpath_assets.slides import Registry, open_slide
from stpath_assets.slides.source import Source, content_of, is_url, scan_cache
from stpath_assets.storage import Store
from stpath_assets.tiles import tile
from tests.conftest import tissue_image, write_tiff
from tests.slides.drawn import jpeg


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    yield fs
    for name in fs.ls("/", detail=False):
        fs.rm(name, recursive=True)


class _Ranged(http.server.SimpleHTTPRequestHandler):
    """A web server that gives parts of files, which Python's own does not."""

    ranged = True

    def send_head(self) -> None:  # type: ignore[override]
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, asked = path.read_bytes(), self.headers.get("Range")
        self.send_response(206 if asked and self.ranged else 200)
        if self.ranged:
            self.send_header("Accept-Ranges", "bytes")
        if asked and self.ranged:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(content)), len(content) - 1)
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            content = content[int(first) : end + 1]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.send_head()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["ranged", "whole"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL and the folder of a server on this machine: one that gives parts of files, and one that does not."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "web"
    folder.mkdir()
    handler = type("Handler", (_Ranged,), {"ranged": request.param == "ranged"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def in_memory(memory: fsspec.AbstractFileSystem, name: str, content: bytes) -> str:
    memory.pipe(f"/{name}", content)
    return f"memory://{name}"


@pytest.mark.parametrize(
    ("text", "url"),
    [("s3://b/a.svs", True), ("https://x/a.svs", True), ("simplecache::s3://b/a", True), ("a.svs", False),
     ("/x/a.svs", False), ("C:/a.svs", False), ("a:b.svs", False)],
)  # fmt: skip
def test_what_a_url_is(text: str, url: bool) -> None:
    assert is_url(text) == url
    assert not is_url(Path(text))


def test_a_scan_at_a_url_is_the_scan(memory: fsspec.AbstractFileSystem, drawn_slide: Path) -> None:
    url = in_memory(memory, "bucket/drawn.tif", drawn_slide.read_bytes())
    with open_slide(url) as there, open_slide(drawn_slide) as here:
        assert (there.name, there.uri, there.mpp, there.backend) == ("drawn.tif", url, 0.5, "tiffslide")
        np.testing.assert_array_equal(there.read_level(0, 0, 0, 1600, 1200), here.read_level(0, 0, 0, 1600, 1200))
        assert tile(there).table == tile(here).table
        assert there.content() == here.content()
    assert not scan_cache().exists(), "it is read where it is"


def test_a_scan_at_a_url_is_registered_as_given(
    memory: fsspec.AbstractFileSystem, drawn_slide: Path, tmp_path: Path
) -> None:
    content = drawn_slide.read_bytes()
    url = in_memory(memory, "bucket/my%20scan.tif", content)
    registry = Registry(Store(tmp_path / "root"))
    row = registry.add(url, organ="Breast")
    assert (row.slide_id, row.uri) == ("my_scan", url)
    assert (row.sha256, row.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert registry.add(url) == registry.refresh("my_scan") == row
    in_memory(memory, "bucket/my%20scan.tif", write_tiff(tmp_path / "b.tif", tissue_image(seed=1)).read_bytes())
    with pytest.raises(SlideError, match="is now another scan"):
        registry.refresh("my_scan")
    with pytest.raises(SlideError, match=r"^drawn2\.tif: has the same content as slide"):
        registry.add(shutil.copy(drawn_slide, tmp_path / "drawn2.tif"))


def test_a_scan_on_the_web(web: tuple[str, Path], drawn_slide: Path) -> None:
    url, folder = web
    shutil.copy(drawn_slide, folder / "a b.tif")
    with open_slide(f"{url}/a%20b.tif") as there, open_slide(drawn_slide) as here:
        assert there.name == "a b.tif"
        np.testing.assert_array_equal(there.read_level(0, 300, 200, 700, 900), here.read_level(0, 300, 200, 700, 900))
        assert there.content() == here.content()


def test_what_is_not_on_the_web(web: tuple[str, Path]) -> None:
    url, folder = web
    for name in ("gone.svs", "empty.svs", "notes.svs"):
        if name != "gone.svs":
            (folder / name).write_text("" if name == "empty.svs" else "not a slide")
        with pytest.raises(SlideError, match=name) as error:
            open_slide(f"{url}/{name}")
        assert "\n" not in str(error.value)


def test_a_picture_at_a_url_is_read_from_a_local_copy(memory: fsspec.AbstractFileSystem) -> None:
    image = tissue_image(600, 800)
    url = in_memory(memory, "a.jpg", jpeg(image))
    with pytest.raises(ScaleError, match=r"^a\.jpg: the file does not say its scale"):
        open_slide(url)
    with open_slide(url, 0.5) as slide:
        assert np.abs(slide.read_level(0, 0, 0, 800, 600).astype(int) - image).mean() < 4
    copies = [p for p in scan_cache().rglob("*") if p.is_file()]
    assert [(p.name, p.read_bytes() == memory.cat("/a.jpg")) for p in copies] == [("a.jpg", True)]
    in_memory(memory, "a.jpg", jpeg(tissue_image(300, 400)))
    with open_slide(url, 0.5) as slide:
        assert (slide.width_px, slide.height_px) == (400, 300), "another version is another copy"


def test_a_copy_is_used_again(memory: fsspec.AbstractFileSystem) -> None:
    source = Source(in_memory(memory, "a.png", b"x" * 100))
    first = source.local()
    stamp = first.stat().st_mtime_ns
    assert Source("memory://a.png").local() == first
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["a.mrxs", "a.vms"])
def test_a_scan_of_several_files_is_not_read_from_a_url(memory: fsspec.AbstractFileSystem, name: str) -> None:
    url = in_memory(memory, name, jpeg(tissue_image(64, 64)))
    with pytest.raises(SlideError, match=rf"^{name}: consists of several files; copy them all"):
        open_slide(url, 0.5)


def test_urls_that_lead_nowhere() -> None:
    with pytest.raises(SlideError, match=r"^memory://gone\.svs: no such file; check the URL"):
        open_slide("memory://gone.svs")
    with pytest.raises(SlideError, match=r"^nosuch://b/a\.svs: is not a supported URL .* use s3://, gs:// or https://"):
        open_slide("nosuch://b/a.svs")


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SlideError, match=r"^a\.svs: its URL holds a password") as error:
        open_slide("https://me:secret@127.0.0.1:9/a.svs")
    assert "secret" not in str(error.value)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a b.tif", tissue_image())
    with open_slide(f"file://{str(path).replace(' ', '%20')}") as slide:
        assert (slide.path, slide.name) == (path, "a b.tif")


# ---- what identifies a scan


def test_the_hash_of_several_files_does_not_depend_on_names_and_order(tmp_path: Path) -> None:
    files = []
    for i, content in enumerate((b"one", b"two", b"three")):
        (tmp_path / f"{i}").write_bytes(content)
        (tmp_path / f"x{i}").write_bytes(content)
        files.append(tmp_path / f"{i}")
    sha256, size = content_of(files)
    assert size == 11
    assert content_of(reversed([tmp_path / f"x{i}" for i in range(3)])) == (sha256, size)
    assert content_of(files[:1]) == (hashlib.sha256(b"one").hexdigest(), 3)
    (tmp_path / "2").write_bytes(b"thref")
    assert content_of(files)[0] != sha256


def test_a_picture_is_kept_whole_in_its_hash(tmp_path: Path) -> None:
    Image.fromarray(tissue_image(64, 64)).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", 0.5) as slide:
        assert slide.content()[0] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "query", ["X-Amz-Signature=abc", "versionId=1&X-Amz-Credential=a%2Fb", "sv=2024&sig=abc", "token=abc", "api_key=x"]
)
def test_a_secret_in_the_query_is_refused_and_not_shown(query: str) -> None:
    with pytest.raises(SlideError, match=r"^a\.svs: its URL holds a secret \(.*=…\), which would be stored") as e:
        Source(f"https://host/scans/a.svs?{query}")
    assert "abc" not in str(e.value)


def test_a_query_without_a_secret_is_taken() -> None:
    assert Source("https://host/scans/a.svs?versionId=1&design=2").name == "a.svs"
