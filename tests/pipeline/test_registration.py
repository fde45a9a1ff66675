"""Spots that do not fit their scan: said by the run, in its table, in SQL and by the slide's check; scored all the same."""

from pathlib import Path

import dagster as dg
import pytest

from stpath_assets.defs.materialize import instance
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store
from tests.asked import ask
from tests.roots import command as sa

pytestmark = pytest.mark.usefixtures("blank_pictures")

CHOICE = ("--encoder", "demo", "--genes", "EPCAM,VIM")


def last_check(home: Path) -> tuple[bool, str, str]:
    """Whether the check passed, its severity and its reason."""
    with instance(load_settings(home)) as opened:
        key = dg.AssetCheckKey(dg.AssetKey("spot_registration"), "spots_fit_the_scan")
        record = opened.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
        assert record.event is not None
        found = record.event.asset_check_evaluation
        assert found is not None
        assert found.partition == "a"
        reason = found.metadata.get("reason", dg.MetadataValue.text("")).value
        return found.passed, found.severity.value, str(reason)


def test_spots_on_glass_are_said_everywhere_and_scored_all_the_same(finished_home: Path) -> None:
    home = finished_home
    (ok,) = ask(home, "select verdict, orientation, reason, n_spots, on_tissue from spot_registration")
    assert ok == ("ok", "as given", None, 4, 1.0)
    assert last_check(home)[0]
    ran = sa("run", *CHOICE, "--home", home)
    assert "?" not in ran.stdout
    selection = home.parent / "a_selection.tsv"
    lines = selection.read_text().splitlines()
    moved = ["\t".join([*line.split("\t")[:4], str(20 * i), "30", "1"]) for i, line in enumerate(lines[1:], 1)]
    selection.write_text("\n".join([lines[0], *moved]) + "\n")
    ran = sa("run", *CHOICE, "--home", home)
    assert ran.exit_code == 0, "a measurement that is in doubt costs no prediction"
    why = "of another section? 0% of the spots lie on tissue, and no orientation fits"
    assert f"a: its spots are suspect: {why}" in ran.stderr
    assert "? these spots may not belong to the scan: see spot_registration" in ran.stdout
    (found,) = ask(home, "select verdict, reason, on_tissue from spot_registration")
    assert found == ("suspect", why, 0.0)
    assert last_check(home) == (False, "WARN", why)
    assert Store(home).part("evaluation_metrics", "a") is not None
    again = sa("run", *CHOICE, "--home", home)
    assert "? these spots" in again.stdout, "each later run says it too"
    assert sa("add", home.parent / "a.tif", "--spots", "none", "--home", home).exit_code == 0
    assert sa("run", *CHOICE, "--home", home).exit_code == 0
    assert ask(home, "select count(*) from spot_registration") == [(0,)]
