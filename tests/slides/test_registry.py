"""The register of slides: one row a scan, told apart by content, updated by adding again, never deleted."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import tifffile

from stpath_assets.errors import ScaleError, SlideError, VocabularyError
from stpath_assets.features import EncoderChoice, store_features
from stpath_assets.slides import Registry
from stpath_assets.storage import SLIDE_ID, Store
from stpath_assets.tiles import TileParameters, store_tiles
from tests.conftest import tissue_image, write_tiff


@pytest.fixture
def registry(empty_store: Store) -> Registry:
    return Registry(empty_store)


def ids(registry: Registry) -> list[str]:
    return [row.slide_id for row in registry.all()]


def test_a_row_says_what_the_scan_is(registry: Registry, drawn_slide: Path) -> None:
    row = registry.add(drawn_slide, organ="breast", tech="ST")
    assert row.slide_id == "drawn"
    assert row.uri == str(drawn_slide)
    assert row.sha256 == hashlib.sha256(drawn_slide.read_bytes()).hexdigest()
    assert row.size_bytes == drawn_slide.stat().st_size
    assert (row.width_px, row.height_px, row.mpp, row.mpp_source, row.levels) == (1600, 1200, 0.5, "file", 1)
    assert (row.organ, row.tech, row.status, row.reason) == ("Breast", "Spatial Transcriptomics", "ready", None)
    assert abs((datetime.now(UTC) - row.registered_at).total_seconds()) < 60
    assert registry.get("drawn") == row
    assert registry.all() == registry.live() == [row]


def test_a_relative_path_is_stored_whole(
    registry: Registry, drawn_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawn_slide.parent)
    assert registry.add("drawn.tif").uri == str(drawn_slide)


def test_the_users_scale_is_kept_with_the_files_and_the_warning(registry: Registry, drawn_slide: Path) -> None:
    row = registry.get(registry.add(drawn_slide, mpp=0.6).slide_id)
    assert (row.mpp, row.mpp_source, row.mpp_file) == (0.6, "user", 0.5)
    assert row.warnings == ("drawn.tif: the given mpp 0.6 contradicts the file's 0.5; the given one is used",)
    with row.open() as slide:
        assert slide.mpp == 0.6


def test_nothing_is_registered_where_anything_is_wrong(
    registry: Registry, drawn_slide: Path, slide_of: Callable[..., Path]
) -> None:
    with pytest.raises(VocabularyError):
        registry.add(drawn_slide, organ="Brest")
    with pytest.raises(ScaleError):
        registry.add(slide_of("no_scale.tif", mpp=None))
    with pytest.raises(SlideError, match=r"spots\.h5ad does not exist; check --spots"):
        registry.add(drawn_slide, spots=drawn_slide.parent / "spots.h5ad")
    with pytest.raises(SlideError, match=r"--id '\.\./x': use letters"):
        registry.add(drawn_slide, slide_id="../x")
    assert ids(registry) == []


def test_adding_again_updates_what_is_known(registry: Registry, drawn_slide: Path, tmp_path: Path) -> None:
    first = registry.add(drawn_slide, organ="Breast")
    (tmp_path / "spots.h5ad").touch()
    again = registry.add(drawn_slide, organ="Skin", tech="Visium", spots=tmp_path / "spots.h5ad")
    assert (again.slide_id, again.organ, again.tech) == ("drawn", "Skin", "Visium")
    assert again.spots_uri == str(tmp_path / "spots.h5ad")
    assert again.registered_at == first.registered_at
    assert registry.all() == [again]


def test_what_is_not_given_again_stays(registry: Registry, slide_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "spots.h5ad").touch()
    scan = slide_of("a.tif", mpp=None)
    first = registry.add(scan, organ="Breast", tech="Visium", spots=tmp_path / "spots.h5ad", mpp=0.6)
    assert registry.add(scan) == first
    with pytest.raises(ScaleError, match="--mpp 0 is outside the range of microscope scans"):
        registry.add(scan, mpp=0.0)


def test_a_scan_keeps_an_id_that_it_was_given(registry: Registry, drawn_slide: Path) -> None:
    registry.add(drawn_slide, slide_id="mine")
    assert registry.add(drawn_slide, organ="Skin").slide_id == "mine"
    assert ids(registry) == ["mine"]


def test_two_scans_of_one_name_are_told_apart_by_content(registry: Registry, drawn_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_tiff(tmp_path / "other" / "drawn.tif", tissue_image(seed=1))
    first, second = registry.add(drawn_slide), registry.add(other)
    assert (first.slide_id, second.slide_id) == ("drawn", f"drawn-{second.sha256[:8]}")
    assert registry.add(other) == second
    assert len(ids(registry)) == 2


def test_a_long_name_that_is_taken_still_gives_an_id(registry: Registry, tmp_path: Path) -> None:
    rows = []
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        rows.append(registry.add(write_tiff(tmp_path / str(i) / ("x" * 200 + ".tif"), tissue_image(seed=i))))
    assert rows[0].slide_id != rows[1].slide_id
    assert all(SLIDE_ID.fullmatch(r.slide_id) for r in rows)


def test_one_content_under_two_names_is_refused_with_a_remedy(
    registry: Registry, drawn_slide: Path, tmp_path: Path
) -> None:
    registry.add(drawn_slide)
    copy = shutil.copy(drawn_slide, tmp_path / "copy.tif")
    with pytest.raises(SlideError, match=r"^copy\.tif: has the same content as slide drawn .* with --id$"):
        registry.add(copy)
    assert ids(registry) == ["drawn"]
    assert registry.add(copy, slide_id="twice").slide_id == "twice"
    assert ids(registry) == ["drawn", "twice"]


def test_the_content_of_a_retired_slide_may_come_back(registry: Registry, drawn_slide: Path, tmp_path: Path) -> None:
    registry.add(drawn_slide)
    registry.retire("drawn")
    assert registry.add(shutil.copy(drawn_slide, tmp_path / "copy.tif")).status == "ready"


def test_an_id_of_another_scan_is_refused(registry: Registry, drawn_slide: Path, slide_of: Callable[..., Path]) -> None:
    registry.add(drawn_slide, slide_id="mine")
    with pytest.raises(SlideError, match=r"--id mine: belongs to another scan \(.*drawn\.tif\)"):
        registry.add(slide_of("b.tif", tissue_image(seed=1)), slide_id="mine")
    assert registry.get("mine").uri == str(drawn_slide)


def test_another_scan_under_a_registered_path_is_not_taken_over(registry: Registry, drawn_slide: Path) -> None:
    """Its scale, organ and spots are another section's."""
    before = registry.add(drawn_slide, organ="Breast", tech="Visium", mpp=0.6)
    assert registry.refresh("drawn") == before
    content = drawn_slide.read_bytes()
    write_tiff(drawn_slide, tissue_image(1280, 1700, seed=1))
    for ask in (
        lambda: registry.refresh("drawn"),
        lambda: registry.add(drawn_slide),
        lambda: registry.add(drawn_slide, mpp=0.5),
    ):
        with pytest.raises(
            SlideError, match=r"^drawn: .*drawn\.tif is now another scan .*; put that one back, or retire drawn"
        ) as e:
            ask()
        assert before.sha256[:12] in str(e.value)
    assert registry.get("drawn") == before
    registry.retire("drawn")
    new = registry.add(drawn_slide)
    assert new.slide_id == f"drawn-{new.sha256[:8]}"
    assert (new.organ, new.mpp, new.mpp_source) == (None, 0.5, "file")
    drawn_slide.write_bytes(content)
    with pytest.raises(SlideError, match="is now another scan"):
        registry.refresh(new.slide_id)


def test_a_scan_that_was_moved_is_found_by_its_content(
    registry: Registry, slide_of: Callable[..., Path], tmp_path: Path
) -> None:
    scan = slide_of("a.tif", mpp=None)
    spots = tmp_path / "a_counts.tsv"
    spots.touch()
    before = registry.add(scan, organ="Breast", tech="Visium", mpp=0.6, spots=spots, patient="P1", slide_id="mine")
    (tmp_path / "elsewhere").mkdir()
    moved = scan.rename(tmp_path / "elsewhere" / "b.tif")
    spots.unlink()
    after = registry.add(moved)
    assert after == replace(before, uri=str(moved), modified_ns=after.modified_ns)
    assert ids(registry) == ["mine"]
    assert registry.refresh("mine") == after


def test_a_copy_of_a_moved_scan_under_its_old_size_is_another_scan(
    registry: Registry, slide_of: Callable[..., Path], tmp_path: Path
) -> None:
    scan = slide_of("a.tif", mpp=None)
    registry.add(scan, mpp=0.6)
    content = bytearray(scan.read_bytes())
    scan.unlink()
    content[-1] ^= 1
    other = tmp_path / "b.tif"
    other.write_bytes(content)
    with pytest.raises(ScaleError, match="--mpp"):
        registry.add(other)


def test_what_was_said_can_be_taken_back(registry: Registry, drawn_slide: Path) -> None:
    registry.add(drawn_slide, organ="Breast", tech="Visium", mpp=0.6)
    row = registry.add(drawn_slide, organ="none", tech="none", mpp="file")
    assert (row.organ, row.tech, row.mpp, row.mpp_source) == (None, None, 0.5, "file")
    assert registry.get("drawn") == row


def test_what_a_run_was_asked_for_is_kept(registry: Registry, drawn_slide: Path) -> None:
    registry.add(drawn_slide)
    assert registry.keep_asked(registry.get("drawn"), {"encoder": "demo", "genes": "A"}).asked_genes == "A"
    assert registry.keep_asked(registry.get("drawn"), {"genes": "B"}).asked_encoder == "demo"
    assert registry.add(drawn_slide, organ="Lung").asked_genes == "B"


def test_refresh_of_a_scan_that_is_gone_or_broken(registry: Registry, drawn_slide: Path) -> None:
    before = registry.add(drawn_slide)
    drawn_slide.write_bytes(drawn_slide.read_bytes()[:5000])
    with pytest.raises(SlideError, match=r"drawn\.tif: is truncated"):
        registry.refresh("drawn")
    drawn_slide.unlink()
    with pytest.raises(SlideError, match=r"drawn\.tif: no such file"):
        registry.refresh("drawn")
    assert registry.get("drawn") == before


def test_what_later_stages_start_from_is_content_and_scale(
    registry: Registry, drawn_slide: Path, tmp_path: Path
) -> None:
    first = registry.add(drawn_slide, organ="Breast")
    copied = registry.add(shutil.copy(drawn_slide, tmp_path / "b.tif"), slide_id="b", organ="Skin")
    assert copied.fingerprint == first.fingerprint
    assert copied.row_fingerprint != first.row_fingerprint
    rescaled = registry.add(drawn_slide, mpp=0.51)
    assert rescaled.fingerprint.digest != first.fingerprint.digest


def test_a_retired_slide_keeps_its_row_and_its_file(registry: Registry, drawn_slide: Path) -> None:
    registry.add(drawn_slide, organ="Breast")
    row = registry.retire("drawn", "out of focus")
    assert (row.status, row.reason, row.organ) == ("retired", "out of focus", "Breast")
    assert registry.live() == []
    assert ids(registry) == ["drawn"]
    assert drawn_slide.exists()
    back = registry.add(drawn_slide)
    assert (back.status, back.reason, back.registered_at) == ("ready", None, row.registered_at)


def test_a_slide_that_is_not_registered_is_an_error_with_what_is(registry: Registry, drawn_slide: Path) -> None:
    registry.store.create()
    with pytest.raises(SlideError, match=r"^nope: no such slide here; registered: none yet"):
        registry.get("nope")
    registry.add(drawn_slide)
    for ask in (registry.get, registry.refresh, registry.retire):
        with pytest.raises(SlideError, match=r"^nope: no such slide here; registered: drawn"):
            ask("nope")


def test_scans_added_at_once_all_get_in(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = Registry._same

    def slowly(self: Registry, *arguments: Any) -> Any:
        chosen = choose(self, *arguments)
        sleep(0.02)  # time for another to choose the same
        return chosen

    monkeypatch.setattr(Registry, "_same", slowly)
    scans = []
    for i in range(6):
        (tmp_path / str(i)).mkdir()
        scans.append(write_tiff(tmp_path / str(i) / "same.tif", tissue_image(256, 256, seed=i)))
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(registry.add, scans))
    assert len({r.slide_id for r in rows}) == 6
    assert ids(registry) == sorted(r.slide_id for r in rows)


def test_nothing_that_a_scan_says_of_a_patient_is_stored(registry: Registry, tmp_path: Path) -> None:
    """Free-text tags name patients and dates; only numbers and the format are taken from them."""
    scan = tmp_path / "s1.svs"
    said = "Aperio Image Library v11\n1600x1200|MPP = 0.5|Patient = Jane Roe|Date = 04/03/61|User = dr-who"
    tifffile.imwrite(
        scan, tissue_image(), tile=(256, 256), photometric="rgb", description=said, metadata=None,
        extratags=[(315, "s", 0, "Jane Roe", True), (306, "s", 0, "1961:03:04 00:00:00", True)],
    )  # fmt: skip
    assert b"Jane Roe" in scan.read_bytes()
    row = registry.add(scan)
    registry.refresh(row.slide_id)
    store_tiles(registry.store, row, TileParameters())
    store_features(registry.store, row, EncoderChoice("demo"), 16)
    words = ("Jane", "Roe", "04/03/61", "1961:03", "dr-who")
    files = [p for p in registry.store.home.rglob("*") if p.is_file()]
    assert len(files) >= 4
    for file in files:
        content = file.read_bytes()
        assert not [w for w in words if w.encode() in content], file
    # Parquet's pages are compressed: what they hold is looked at too.
    stored = str(registry.store.read("slides", "s1").to_pylist()) + str(
        registry.store.require("tile_grids", "s1").facts
    )
    assert "0.5" in stored
    assert not [w for w in words if w in stored]
