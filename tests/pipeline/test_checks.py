"""Checks of slides and of the cohort: they pass where all is well, and name what is not."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.defs.assets import features
from stpath_assets.defs.checks import MOST, PATIENCE_S, inbox_is_fresh, no_slide_failed
from stpath_assets.ingestion import list_inbox, register_arrivals
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff


@pytest.fixture
def settings(empty_store: Store) -> Settings:
    (empty_store.home / "inbox").mkdir()
    return load_settings(empty_store.home, encoder="demo", genes="EPCAM")


def result(check, settings: Settings):
    found = check(settings=settings)
    return found.passed, {name: getattr(value, "value", value) for name, value in found.metadata.items()}


def test_all_is_well(settings: Settings, tmp_path: Path) -> None:
    Registry(Store(settings.home)).add(write_tiff(tmp_path / "a.tif", tissue_image()), organ="Breast", tech="Visium")
    assert result(no_slide_failed, settings) == (True, {"count": 0}), "a slide that was not made yet has not failed"
    assert result(inbox_is_fresh, settings) == (True, {"count": 0})
    empty = load_settings(tmp_path / "nothing here")
    assert result(no_slide_failed, empty)[0]
    assert result(inbox_is_fresh, empty)[0]


def test_failed_slides_are_counted_and_some_are_named(settings: Settings, tmp_path: Path) -> None:
    inbox = settings.home / "inbox"
    for n in range(MOST + 3):
        (inbox / f"broken{n:02d}.svs").write_text(f"no scan {n}")
    scan = write_tiff(tmp_path / "a.tif", tissue_image())
    Registry(Store(settings.home)).add(scan, organ="Breast", tech="Visium")
    scan.unlink()
    register_arrivals(Store(settings.home), list_inbox([inbox]).arrivals)
    passed, said = result(no_slide_failed, settings)
    assert not passed
    assert said["count"] == MOST + 4
    assert len(said["some"]) == MOST
    assert "a.tif" in said["some"]["a"]
    assert "is not a readable slide" in said["some"]["broken00"]
    assert "status" in said["what to do"]
    assert len(json.dumps(said["some"])) < 20_000


def test_scans_that_nobody_registers_are_told_after_an_hour(settings: Settings) -> None:
    scan = write_tiff(settings.home / "inbox" / "a.tif", tissue_image())
    assert result(inbox_is_fresh, settings)[0]
    old = time.time() - PATIENCE_S - 60
    os.utime(scan, (old, old))
    passed, said = result(inbox_is_fresh, settings)
    assert not passed
    assert list(said["some"]) == [str(scan)]
    register_arrivals(Store(settings.home), list_inbox([scan.parent]).arrivals)
    assert result(inbox_is_fresh, settings)[0]


@pytest.mark.parametrize(
    ("numbers", "passes"),
    [
        ({"tiles_embedded": 9, "not_finite": 0, "largest_range": 0.1}, True),
        ({"tiles_embedded": 9, "not_finite": 0, "largest_range": 0.0}, False),
        ({"tiles_embedded": 1, "not_finite": 0, "largest_range": 0.0}, True),
        ({"tiles_embedded": 9, "not_finite": 1, "largest_range": 0.0}, False),
    ],
)
def test_features_that_are_equal_or_not_finite_fail(numbers: dict[str, float], passes: bool) -> None:
    (checked,) = features._judge(numbers)
    assert checked.passed == passes


def test_the_spread_of_features_is_theirs(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_AT_ONCE", 3)
    store = Store(finished_home)
    stored = np.array(store.read("gigapath_features", "a")["feature"].to_pylist(), np.float32)
    found = features._spread(store, "a")
    assert found == {
        "tiles_embedded": len(stored), "not_finite": 0, "largest_range": pytest.approx(float(np.ptp(stored, axis=0).max())),
    }  # fmt: skip
