"""Reports: one file that needs no other, with the catalog's numbers, and nothing that a name could break."""

import re
from pathlib import Path

import pytest

from stpath_assets.report.content import cohort_of
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.asked import ask
from tests.roots import command


def outside(html: str) -> list[str]:
    """What a page would load from elsewhere. Links that a reader may follow are not loaded."""
    return [
        u
        for u in re.findall(r"""(?:src|href)=["']([^"']+)""", html)
        if not u.startswith(("data:", "#", "http://127.0.0.1:3100/"))
    ]


def test_the_cohorts_report_is_one_file(finished_home: Path, tmp_path: Path) -> None:
    ran = command("report", "--home", finished_home, "--out", tmp_path / "r.html")
    assert ran.exit_code == 0, ran.stderr
    assert [p.name for p in tmp_path.glob("*.html")] == ["r.html"]
    html = (tmp_path / "r.html").read_text()
    assert outside(html) == []
    assert "<script" not in html
    (r,) = ask(
        finished_home,
        "select avg(pearson_r) r from evaluation_metrics where protocol = 'tutorial:raw_log1p' and model = 'stpath-demo'",
    )
    assert f"<td>{r[0]:.3f}</td>" in html
    for said in (
        "tutorial:cp10k_log1p",
        "no biology",
        "stpath_weights_sha256",
        "demo weights: part of stpath-assets",
        "no diagnosis",
    ):
        assert said in html, said


def test_with_a_page_a_slide(finished_home: Path, tmp_path: Path) -> None:
    ran = command("report", "--home", finished_home, "--out", tmp_path / "r.html", "--pages", tmp_path / "pages")
    assert ran.exit_code == 0, ran.stderr
    assert outside((tmp_path / "r.html").read_text()) == ["pages/a.html"]
    page = (tmp_path / "pages" / "a.html").read_text()
    assert outside(page) == []
    assert "<h1>a</h1>" in page
    assert page.count("data:image/jpeg") >= 3, "tiles and figures"
    assert "http://127.0.0.1:3100/slides/a" in page
    assert command("report", "a", "--home", finished_home, "--out", tmp_path / "a.html").exit_code == 0


def test_before_anything_is_made_it_says_so(empty_store: Store, drawn_slide: Path, tmp_path: Path) -> None:
    Registry(empty_store).add(drawn_slide, organ="Breast")
    ran = command("report", "--home", empty_store.home, "--out", tmp_path / "r.html")
    assert ran.exit_code == 0, ran.stderr
    html = (tmp_path / "r.html").read_text()
    assert "Nothing was scored" in html
    assert "Nothing is predicted yet" in html
    assert command("report", "drawn", "--home", empty_store.home, "--out", tmp_path / "d.html").exit_code == 0


def test_text_from_files_stays_text(empty_store: Store, drawn_slide: Path, tmp_path: Path) -> None:
    Registry(empty_store).add(drawn_slide, cohort="<script>alert(1)</script>")
    assert command("report", "--home", empty_store.home, "--out", tmp_path / "r.html").exit_code == 0
    html = (tmp_path / "r.html").read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("given", "code", "why"),
    [
        (["--out", "r.pdf"], 1, "a report ends in .html"),
        (["--out", "no/r.html"], 1, "does not exist; make it first"),
        (["b", "--out", "r.html"], 1, "b: no such slide here"),
        (["a", "--out", "r.html", "--pages", "p"], 2, "--pages is a folder beside the report of the cohort"),
    ],
)
def test_what_is_wrong_is_one_line(
    finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], code: int, why: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran = command("report", "--home", finished_home, *given)
    assert (ran.exit_code, why in ran.stderr) == (code, True), ran.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_a_report_is_not_overwritten(finished_home: Path, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("mine")
    assert "exists already" in command("report", "--home", finished_home, "--out", tmp_path / "r.html").stderr
    assert (tmp_path / "r.html").read_text() == "mine"
    assert command("report", "--home", finished_home, "--out", tmp_path / "r.html", "--force").exit_code == 0


def test_the_intervals_are_over_slides(finished_home: Path) -> None:
    content = cohort_of(load_settings(finished_home))
    assert [protocol for protocol, _ in content.scores] == ["tutorial:raw_log1p", "tutorial:cp10k_log1p"]
    for _, rows in content.scores:
        assert all((row["low"], row["high"]) == (None, None) for row in rows), "one slide has no interval"
