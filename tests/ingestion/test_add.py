"""`add` with many scans at once: a folder, a manifest, a dry run."""

import json
import shutil
from pathlib import Path

import pytest

from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two scans, one of them with a sidecar, a copy of it, a broken one, and a text."""
    folder = tmp_path / "inbox"
    (folder / "deep").mkdir(parents=True)
    image = tissue_image()
    write_tiff(folder / "a.tif", image)
    image[:64, :64] = 9
    write_tiff(folder / "deep" / "b.tif", image)
    (folder / "deep" / "b.yaml").write_text("organ: Brain\npatient_id: 17\nstain: H&E\nmpp: 0.4\n")
    shutil.copyfile(folder / "a.tif", folder / "deep" / "same.tif")
    (folder / "broken.svs").write_text("no scan")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_a_folder_is_registered_and_what_is_no_scan_is_counted(inbox: Path, tmp_path: Path) -> None:
    ran = sa("add", inbox, "--home", tmp_path / "h", "--tech", "visium", "--organ", "Breast", "--cohort", "trial")
    assert ran.exit_code == 1, "one is broken"
    assert ran.stdout.splitlines()[-1] == "2 registered, 1 failed, 1 with the content of another, 1 other files"
    assert "broken.svs" in ran.stderr
    assert "same.tif: has the same content as slide a" in ran.stderr
    a, b = Registry(Store(tmp_path / "h")).all()
    assert (a.slide_id, a.organ, a.tech, a.cohort, a.more) == ("a", "Breast", "Visium", "trial", None)
    assert (b.slide_id, b.organ, b.tech, b.patient_id, b.mpp) == ("b", "Brain", "Visium", "17", 0.4)
    assert json.loads(str(b.more)) == {"stain": "H&E"}


def test_further_columns_can_be_queried(inbox: Path, tmp_path: Path) -> None:
    sa("add", inbox, "--home", tmp_path / "h")
    ran = sa(
        "sql", "select slide_id, more->>'stain' s from slides order by 1", "--home", tmp_path / "h", "--format", "csv"
    )
    assert ran.stdout.splitlines() == ["slide_id,s", "a,", "b,H&E"]


def test_a_manifest_is_registered_row_by_row(inbox: Path, tmp_path: Path) -> None:
    manifest = inbox / "slides.csv"
    manifest.write_text(
        "file,slide_id,organ,genes\na.tif,first,Breast,EPCAM\ndeep/b.tif,,Brest,\ndeep/b.tif,second,,\n"
    )
    ran = sa("add", "--manifest", manifest, "--home", tmp_path / "h")
    assert ran.exit_code == 1
    assert f"{manifest}: row 3: organ: STPath has no organ token 'Brest'" in ran.stderr
    rows = Registry(Store(tmp_path / "h")).all()
    assert [(r.slide_id, r.organ, r.asked_genes) for r in rows] == [
        ("first", "Breast", "EPCAM"),
        ("second", None, None),
    ]


def test_a_manifest_given_again_changes_what_it_says_and_keeps_the_rest(inbox: Path, tmp_path: Path) -> None:
    manifest = inbox / "slides.csv"
    manifest.write_text("file,organ,patient_id,stain\na.tif,Breast,P1,H&E\n")
    sa("add", "--manifest", manifest, "--home", tmp_path / "h")
    manifest.write_text("file,organ,patient_id\na.tif,none,\n")
    assert sa("add", "--manifest", manifest, "--home", tmp_path / "h").exit_code == 0
    (row,) = Registry(Store(tmp_path / "h")).all()
    assert (row.organ, row.patient_id, json.loads(str(row.more))) == (None, "P1", {"stain": "H&E"})


def test_a_dry_run_shows_what_would_be_and_registers_nothing(inbox: Path, tmp_path: Path) -> None:
    ran = sa("add", inbox, "--home", tmp_path / "h", "--dry-run")
    assert ran.exit_code == 0
    lines = {line.split()[0]: line for line in ran.stdout.splitlines() if line.strip()}
    assert "1600 x 1200" in lines["a"]
    assert " new " in lines["a"]
    assert "Brain" in lines["b"]
    assert "0.4" in lines["b"]
    assert " refused " in lines["broken"]
    assert "broken.svs" in lines["error:"]
    assert not (tmp_path / "h").exists()
    sa("add", inbox, "--home", tmp_path / "h")
    again = sa("add", inbox, "--home", tmp_path / "h", "--dry-run").stdout
    assert "update" in next(line for line in again.splitlines() if line.split()[:1] == ["a"])


def test_what_belongs_to_one_slide_is_refused_for_many(inbox: Path, tmp_path: Path) -> None:
    ran = sa("add", inbox, "--home", tmp_path / "h", "--spots", inbox / "notes.txt")
    assert ran.exit_code == 2
    assert "belong to one slide" in ran.stderr
