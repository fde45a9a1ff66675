"""One notion of "up to date": what `stages` says is what is stored, what `status` shows and what SQL answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.stages import STAGES, Plan, Survey, describe_differences, differences
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import start
from tests.asked import ask
from tests.roots import command as sa
from tests.roots import write_spots


@pytest.fixture
def home(finished_home: Path, blank_pictures: None) -> Path:
    """The data root of a copy of `finished`: one slide with spots, brought up to date."""
    return finished_home


def status(home: Path) -> dict[str, str]:
    ran = sa("status", "--home", home, "--json")
    assert ran.exit_code == 0, ran.stderr
    return dict(json.loads(ran.stdout)[0])


def states(home: Path) -> dict[str, str]:
    return {k: v.split(":")[0] for k, v in status(home).items() if k in STAGES}


CURRENT = dict.fromkeys(STAGES, "current") | {"reference_predictions": "–", "context_predictions": "–"}


def test_after_a_run_all_is_current_and_what_is_stored_is_what_is_expected(home: Path) -> None:
    assert states(home) == CURRENT
    store = Store(home)
    row, plan = Registry(store).get("a"), Plan(load_settings(home))
    for stage in [name for name, state in CURRENT.items() if state == "current"][1:]:
        assert store.require(stage, "a").facts == plan.expected(stage, row).facts
    assert ask(home, "select * from stale_slides") == []


GRID = {"tile_grids", "gigapath_features", "stpath_predictions", "expression_by_slide", "evaluation_metrics"}

Change = Callable[[Path, pytest.MonkeyPatch], None]
CHANGES: dict[str, tuple[Change, set[str], str]] = {
    "organ": (
        lambda home, _: sa("add", home.parent / "a.tif", "--home", home, "--organ", "Lung") and None,
        {"stpath_predictions", "expression_by_slide", "evaluation_metrics"}, "organ Breast → Lung",
    ),
    "panel": (
        lambda home, patch: patch.setenv("STPATH_GENES", "EPCAM"),
        {"stpath_predictions", "expression_by_slide", "evaluation_metrics"}, "genes EPCAM,VIM → EPCAM",
    ),
    "store_as": (
        lambda home, patch: patch.setenv("STPATH_STORE_AS", "float16"),
        {"stpath_predictions", "expression_by_slide", "evaluation_metrics"}, "store_as none → float16",
    ),
    "stride": (
        lambda home, patch: patch.setenv("STPATH_STRIDE", "0.5"),
        GRID, "tile_stride 1.0 → 0.5",
    ),
    "min_tissue": (
        lambda home, patch: patch.setenv("STPATH_MIN_TISSUE", "0.75"),
        GRID, "min_tissue 0.25 → 0.75",
    ),
    "spots": (
        lambda home, _: write_spots(home.parent, "a", count=9) and None,
        {"spot_expression", "spot_registration", "evaluation_metrics"}, "spots_sha256 ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_is_outdated_until_the_next_run(home: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    change, touched, says = CHANGES[what]
    change(home, monkeypatch)
    assert states(home) == {**CURRENT, **dict.fromkeys(touched, "outdated")}
    assert all(says in v for k, v in status(home).items() if k in touched)
    stale = ask(home, "select distinct stage, state from stale_slides")
    assert set(stale) == {(stage, "outdated") for stage in touched}
    field = says.split()[0]
    assert {f for (f,) in ask(home, "select distinct field from stale_slides")} == {field}
    assert sa("run", "--home", home).exit_code == 0
    assert states(home) == CURRENT


def test_spots_that_cannot_be_read_are_failed_not_current(home: Path) -> None:
    spots = home.parent / "a_counts.tsv"
    spots.write_text("nonsense")
    assert states(home)["spot_expression"] == "outdated"
    assert sa("run", "--home", home).exit_code == 1
    found = status(home)
    assert found["spot_expression"].startswith("failed: ")
    assert "a_counts.tsv" in found["spot_expression"]
    spots.unlink()
    assert status(home)["spot_expression"].startswith("failed: ")
    write_spots(home.parent, "a")
    assert sa("run", "--home", home).exit_code == 0
    assert states(home) == CURRENT
    assert ask(home, "select * from failures") == []


def test_a_scan_that_is_gone_or_replaced_is_said(home: Path) -> None:
    scan = home.parent / "a.tif"
    scan.write_bytes(scan.read_bytes() + b"x")
    assert states(home)["slides"] == "replaced"
    scan.unlink()
    assert states(home) == {**CURRENT, "slides": "gone"}


def test_a_slide_without_spots_has_nothing_to_do_there(home: Path) -> None:
    assert sa("add", home.parent / "a.tif", "--home", home, "--spots", "none").exit_code == 0
    nothing = {"spot_expression": "–", "spot_registration": "–", "evaluation_metrics": "–"}
    assert states(home) == {**CURRENT, **nothing}
    assert sa("run", "--home", home).exit_code == 0
    assert ask(home, "select count(*) from spot_expression") == [(0,)]
    assert ask(home, "select count(*) from evaluation_metrics") == [(0,)]


def test_a_part_deleted_by_hand_is_made_again(home: Path) -> None:
    Store(home).path("stpath_predictions", "a").unlink()
    assert states(home) == {**CURRENT, "stpath_predictions": "failed"}
    assert sa("run", "--home", home).exit_code == 0
    assert states(home) == CURRENT


def test_what_a_run_was_asked_for_holds_until_something_else_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sa("run", "--home", home).exit_code == 0
    assert ask(home, "select distinct gene from stpath_predictions order by 1") == [("EPCAM",), ("VIM",)]
    assert sa("run", "--home", home, "--genes", "VIM").exit_code == 0
    assert states(home) == CURRENT
    (home / "settings.toml").write_text('genes = "EPCAM"\n')
    assert states(home)["stpath_predictions"] == "outdated"


def test_status_fetches_nothing_and_says_what_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_ENCODER", "gigapath")
    found = status(home)
    assert found["tile_grids"] == "current"
    assert "is not on this machine" in found["gigapath_features"]


def test_a_retired_slide_is_shown_and_not_looked_at(home: Path) -> None:
    sa("retire", "a", "--home", home)
    assert status(home) == {"slide": "a", "status": "retired"}
    survey = Survey(Store(home), Plan(load_settings(home)))
    assert [r.slide_id for r in survey.rows] == ["a"]


def test_the_graph_is_in_the_order_of_the_data() -> None:
    seen: set[str] = set()
    for stage in STAGES.values():
        assert set(stage.parents) <= seen
        seen.add(stage.name)


def test_differences_are_told_shortly() -> None:
    was = start(slide_sha256="0" * 64, genes=["A"], organ=None, x=1)
    now = start(slide_sha256="1" * 64, genes=list("ABCD"), organ="Lung", x=1, y=2)
    assert [d[0] for d in differences(was, now)] == ["genes", "organ", "slide_sha256", "y"]
    assert (
        describe_differences(differences(was, now))
        == "genes A → 4 values, organ none → Lung, slide_sha256 00000000… → 11111111…, 1 more"
    )


def test_status_of_a_root_that_is_not_there(tmp_path: Path) -> None:
    for command in (
        ["status"],
        ["sql", "select 1"],
        ["export", "a", "--to", "h5ad", "--out", "x.h5ad"],
        ["run"],
        ["maintain"],
    ):
        ran = sa(*command, "--home", tmp_path / "nowhere")
        assert ran.exit_code == 1
        assert "no such data root" in ran.stderr
        assert not (tmp_path / "nowhere").exists()
    assert sa("doctor", "--home", tmp_path / "nowhere").exit_code == 1
    assert not (tmp_path / "nowhere").exists()


def test_status_says_in_a_line_that_spots_were_not_laid_on_their_scan(finished_home: Path) -> None:
    Store(finished_home).remove(["spot_registration"], "a")
    ran = sa("status", "--home", finished_home)
    assert "a: on scan missing: run the slide" in ran.stdout.splitlines()
    assert max(map(len, ran.stdout.splitlines()[:2])) <= 80
