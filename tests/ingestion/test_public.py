"""Public data sets, from a local server with drawn files of the publisher's layout."""

import http.server
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stpath_assets.cli.get import _NAMES
from stpath_assets.errors import DownloadError
from stpath_assets.ingestion import public
from stpath_assets.ingestion.download import download
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa
from tests.spots.arrays import place, places_of, write_array


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, with ranges. Breaks off after `breaks_after` bytes of an answer, once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.breaks_after, self.asked = folder, 0, list[tuple[str, str]]()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        asked = self.headers.get("Range", "")
        self.server.asked.append((path.name, asked))
        if not path.is_file():
            self.send_error(404)
            return
        content, version = path.read_bytes(), f'"{path.stat().st_mtime_ns}"'
        first = int(re.findall(r"\d+", asked)[0]) if asked and self.headers.get("If-Range") == version else 0
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", version)
        self.end_headers()
        breaks, self.server.breaks_after = self.server.breaks_after, 0
        self.wfile.write(content[first : first + breaks] if breaks else content[first:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The files of `visium-breast-1` at a scale of 0.8 µm per pixel that the image does not say."""
    folder, stem = tmp_path / "served", public.DATA_SETS["visium-breast-1"].stem
    folder.mkdir()
    write_tiff(folder / f"{stem}_{public.IMAGE}", tissue_image(1200, 1600), mpp=None)
    places = places_of(11, 22)
    outs = write_array(tmp_path / "made", places, place(places, 0.8), diameter_px=65 / 0.8)
    (outs / public.MATRIX).rename(folder / f"{stem}_{public.MATRIX}")
    with tarfile.open(folder / f"{stem}_{public.SPATIAL}", "w:gz") as archive:
        archive.add(outs / "spatial", "spatial")
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_data_set_is_fetched_registered_with_its_spots_and_can_be_run(
    server: Server, tmp_path: Path, blank_pictures: None
) -> None:
    home = tmp_path / "home"
    ran = sa("get", "visium-breast-1", "--mirror", server.url, "--home", home)
    assert ran.exit_code == 0, ran.stderr
    assert "CC BY 4.0" in ran.stdout
    assert "10x Genomics" in ran.stdout
    assert "0.8 µm/px, from its spots" in ran.stdout
    row = Registry(Store(home)).get("visium-breast-1")
    assert (row.organ, row.tech, row.mpp_source) == ("Breast", "Visium", "spots")
    assert json.loads(str(row.more))["licence"] == "Creative Commons Attribution 4.0 (CC BY 4.0)"
    ran = sa("run", "--encoder", "demo", "--genes", "EPCAM,VIM", "--home", home)
    assert ran.exit_code == 0, ran.stderr
    assert Store(home).row_count("evaluation_metrics", "visium-breast-1") == 2 * 2
    server.asked.clear()
    assert sa("get", "visium-breast-1", "--mirror", server.url, "--home", home).exit_code == 0
    assert server.asked == [], "what is there is not fetched again"


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    (served,) = server.folder.glob("*.tif")
    server.breaks_after = 5000
    ran = sa("get", "visium-breast-1", "--mirror", server.url, "--home", tmp_path / "home")
    assert ran.exit_code == 1
    assert len(ran.stderr.splitlines()) == 1
    assert "broke off" in ran.stderr
    assert "it goes on where it stopped" in ran.stderr
    (part,) = (tmp_path / "home").rglob("*.part")
    assert part.stat().st_size == 5000
    assert sa("get", "visium-breast-1", "--mirror", server.url, "--home", tmp_path / "home").exit_code == 0
    assert (served.name, "bytes=5000-") in server.asked
    assert (tmp_path / "home/public/visium-breast-1/visium-breast-1.tif").read_bytes() == served.read_bytes()
    assert [p for p in (tmp_path / "home/public").rglob("*") if ".part" in p.name] == []


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server: Server, tmp_path: Path) -> None:
    (server.folder / "f").write_bytes(b"a" * 9000)
    server.breaks_after = 4000
    with pytest.raises(DownloadError):
        download(f"{server.url}/f", tmp_path / "f")
    (server.folder / "f").write_bytes(b"b" * 9000)
    download(f"{server.url}/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"b" * 9000


def test_a_wrong_checksum_and_a_missing_file_are_one_line(server: Server, tmp_path: Path) -> None:
    (server.folder / "f").write_bytes(b"hello")
    with pytest.raises(DownloadError, match="is not the expected file"):
        download(f"{server.url}/f", tmp_path / "f", "0" * 64)
    assert not (tmp_path / "f").exists()
    with pytest.raises(DownloadError, match=r"nothing: the server refuses it \(404\)"):
        download(f"{server.url}/nothing", tmp_path / "nothing")
    with pytest.raises(DownloadError, match="broke off"):
        download("http://127.0.0.1:1/f", tmp_path / "f")


def test_a_damaged_archive_is_one_line(server: Server, tmp_path: Path) -> None:
    (archive,) = server.folder.glob("*.tar.gz")
    archive.write_bytes(archive.read_bytes()[:200])
    ran = sa("get", "visium-breast-1", "--mirror", server.url, "--home", tmp_path / "home")
    assert ran.exit_code == 1
    assert "spatial.tar.gz: cannot be unpacked" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_the_command_knows_every_data_set() -> None:
    assert set(_NAMES) == set(public.DATA_SETS)
