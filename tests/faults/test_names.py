"""Names that would reach further: paths, SQL, markup, escape codes, bytes that are no text, tokens in URLs."""

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from stpath_assets.errors import SlideError, StpathError, without_secrets
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry, open_slide
from stpath_assets.storage import Store
from stpath_assets.viewer.app import create_app
from tests.conftest import tissue_image, write_tiff
from tests.roots import command

NASTY = (
    "../../etc/passwd", "a/../../b", "..", "a\0b", "a' or 1=1 --", "a'); drop table slides; --", "<script>alert(1)</script>",
    "![x](http://stranger.example/x.png)", "a\nb", "\x1b]0;owned\x07", "ä" * 200, "%2e%2e%2f", "{{7*7}}", "a\u202eb", "-rf",
)  # fmt: skip


def is_clean(text: str) -> bool:
    """Whether a terminal shows a text as it is."""
    return all(c.isprintable() or c in "\n" for c in text)


@pytest.mark.parametrize("name", NASTY)
def test_as_an_id_or_a_gene_of_a_command(finished: Path, name: str) -> None:
    home = finished / "home"
    for words in (["run", name], ["retire", name], ["export", name, "--to", "csv", "--out", "/nowhere/x.csv"]):
        ran = command(*words, "--home", home)
        assert ran.exit_code in (1, 2), ran.output
        assert is_clean(ran.output)
        assert "Traceback" not in ran.output
    ran = command("run", "a", "--encoder", "demo", "--genes", name, "--home", home)
    assert ran.exit_code in (1, 2)
    assert is_clean(ran.output)
    assert Registry(Store(home)).get("a").status == "ready"


@pytest.mark.parametrize("name", NASTY)
def test_as_an_id_of_a_scan_or_a_cell_of_a_manifest(tmp_path: Path, name: str) -> None:
    scan, home = write_tiff(tmp_path / "a.tif", tissue_image(300, 300)), tmp_path / "home"
    ran = command("add", scan, f"--id={name}", "--home", home)
    assert ran.exit_code == 1
    assert "use letters, digits" in ran.stderr
    manifest = tmp_path / "m.csv"
    quoted = name.replace('"', '""')
    manifest.write_text(f'file,slide_id,patient_id\na.tif,"{quoted}",P\n"{quoted}",,P\n', encoding="utf-8")
    ran = command("add", "--manifest", manifest, "--home", home)
    assert ran.exit_code == 1
    assert is_clean(ran.output)
    assert not (tmp_path / "etc").exists()
    assert not Store(home).is_there() or Registry(Store(home)).all() == []


@pytest.fixture(scope="module")
def viewer(finished: Path) -> TestClient:
    return TestClient(create_app(load_settings(finished / "home")), base_url="http://localhost")


# A client makes `..` of a path itself.
@pytest.mark.parametrize("name", [n for n in NASTY if n not in ("..", "%2e%2e%2f")])
def test_as_a_part_of_the_viewers_urls(viewer: TestClient, name: str) -> None:
    from urllib.parse import quote

    part = quote(name, safe="")
    for path in (
        f"/slides/{part}", f"/api/slides/{part}", f"/api/slides/a/expression?gene={part}&model=stpath-demo",
        f"/api/slides/a/tiles/{part}", f"/api/slides/a/tiles/{part}.jpg", f"/static/{part}",
    ):  # fmt: skip
        answer = viewer.get(path)
        assert answer.status_code in (400, 404, 405, 422), (path, answer.status_code)
        assert "root:" not in answer.text
        is_json = answer.headers["content-type"].startswith("application/json")
        assert is_json or "<script>alert" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "Traceback" not in answer.text


def test_markup_is_shown_as_text(tmp_path: Path) -> None:
    """In columns of a manifest, which pages and reports show."""
    home, bad = tmp_path / "home", "<script>alert(1)</script><img src=http://stranger.example/x.png>"
    write_tiff(tmp_path / "a.tif", tissue_image(600, 800))
    (tmp_path / "m.csv").write_text(f"file,cohort,patient_id,stain\na.tif,{bad},{bad},{bad}\n")
    assert command("add", "--manifest", tmp_path / "m.csv", "--home", home).exit_code == 0
    client = TestClient(create_app(load_settings(home)), base_url="http://localhost")
    pages = [client.get(path) for path in ("/", "/slides/a")]
    assert command("report", "--out", tmp_path / "r.html", "--home", home).exit_code == 0
    texts = [p.text for p in pages if "html" in p.headers["content-type"]] + [(tmp_path / "r.html").read_text()]
    assert len(texts) == 3
    for text in texts:
        assert "<script>alert" not in text
        assert "<img src=http" not in text
    for page in pages:
        assert "default-src 'self'" in page.headers["content-security-policy"]


def test_escape_codes_of_a_file_name(tmp_path: Path) -> None:
    home, name = tmp_path / "home", "\x1b]0;owned\x07\x1b[31mred.tif"
    scan = write_tiff(tmp_path / name, tissue_image(600, 800))
    for words in (
        ["add", scan],
        ["status"],
        ["sql", "select uri from slides"],
        ["run", "--encoder", "demo", "--genes", "EPCAM"],
    ):
        ran = command(*words, "--home", home)
        assert ran.exit_code == 0, ran.output
        assert "\x1b" not in ran.output
    scan.write_bytes(b"no scan")
    ran = command("add", scan, "--home", tmp_path / "other")
    assert ran.exit_code == 1
    assert "\x1b" not in ran.output


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    scan = write_tiff(tmp_path / "a.tif", tissue_image(300, 300))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.tif"))
    scan.rename(odd)
    ran = command("add", odd, "--home", tmp_path / "home")
    assert ran.exit_code == 1
    assert "its name is not UTF-8; rename it" in ran.stderr
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ghp_0123456789@host/a.svs", "https://***@host/a.svs"),
        ("https://user:word@host/a.svs", "https://user:***@host/a.svs"),
        ("https://host/a.svs?X-Amz-Signature=0123&x=1", "https://host/a.svs?X-Amz-Signature=***&x=1"),
        ("https://host/a.svs?access_token=0123", "https://host/a.svs?access_token=***"),
        ("postgres://u:word@host/db", "postgres://u:***@host/db"),
    ],
)
def test_tokens_in_urls_are_refused_and_hidden(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert str(StpathError(f"cannot be read: {url}")) == f"cannot be read: {shown}"
    if not url.startswith("postgres"):
        with pytest.raises(SlideError) as error:
            open_slide(url)
        assert "0123" not in str(error.value)
        assert "word@" not in str(error.value)
