"""A patient's name in the name of a file, its folder, its manifest: with --pseudonymize, it is in the key and nowhere else."""

import os
import stat
from pathlib import Path

import pytest

from stpath_assets.errors import SlideError, StorageError
from stpath_assets.ingestion import Entry, Pseudonyms
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command, write_spots
from tests.slides.drawn import mirax, vms
from tests.slides.drawn_dicom import dicom
from tests.slides.test_private import aperio

pytestmark = pytest.mark.usefixtures("blank_pictures")
NAMES = ("Quimby", "Thessaly", "MRN-4711")


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is named after a patient, with a scan and its spots."""
    folder = tmp_path / "Quimby_Thessaly"
    folder.mkdir()
    aperio(folder / "Quimby_MRN-4711.svs")
    write_spots(folder, "Quimby_MRN-4711", x=300)
    (folder / "manifest.csv").write_text(
        "file,patient_id,organ,tech,spots,surgeon\n"
        "Quimby_MRN-4711.svs,MRN-4711,Breast,Visium,Quimby_MRN-4711_counts.tsv,Thessaly\n"
    )
    monkeypatch.setenv("STPATH_PSEUDONYM_FOLDER", str(tmp_path / "key"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def with_names(root: Path) -> list[str]:
    """Paths below a folder that have a name, or whose content has one."""
    return [
        str(p.relative_to(root))
        for p in root.rglob("*")
        if any(n.encode() in str(p).encode() or (p.is_file() and n.encode() in p.read_bytes()) for n in NAMES)
    ]


def test_names_are_in_the_key_and_nowhere_else(named: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    added = command("add", "--manifest", named / "manifest.csv", "--pseudonymize", "--home", home)
    assert added.exit_code == 0, added.stderr
    assert "surgeon: not kept, since it may name a person" in added.stderr
    assert f"{tmp_path / 'key' / 'key.csv'} says which scan is which" in added.stderr
    ran = command("run", "--encoder", "demo", "--genes", "EPCAM,VIM", "--home", home)
    assert ran.exit_code == 0, ran.stderr
    (row,) = Registry(Store(home)).all()
    assert row.slide_id.startswith("S")
    assert len(row.slide_id) == 17
    shown = [added.stdout, ran.stdout, ran.stderr, command("status", "--home", home).stdout]
    shown += [command("sql", f"select * from {t}", "--home", home).stdout for t in ("slides", "evaluation_metrics")]
    assert row.slide_id in shown[0]
    for name in NAMES:
        assert not any(name in text for text in shown), name
    assert with_names(home) == []
    assert with_names(tmp_path / "cache") == []
    (known,) = Pseudonyms(tmp_path / "key", home).read()
    assert known == {
        "slide_id": row.slide_id, "file": str(named / "Quimby_MRN-4711.svs"), "patient_id": row.patient_id,
        "patient": "MRN-4711",
    }  # fmt: skip
    assert row.patient_id is not None
    assert row.patient_id.startswith("P")


def test_the_same_scan_has_the_same_id_and_only_with_the_same_secret(named: Path, tmp_path: Path) -> None:
    home, scan = tmp_path / "home", Entry(str(named / "Quimby_MRN-4711.svs"))
    key = Pseudonyms(tmp_path / "key", home)
    first, _ = key.disguise(scan)
    renamed = named / "other.svs"
    (named / "Quimby_MRN-4711.svs").rename(renamed)
    again, _ = key.disguise(Entry(str(renamed)))
    assert again.known.slide_id == first.known.slide_id
    assert Path(again.scan).resolve() == renamed.resolve(), "the link follows the scan"
    assert [r["file"] for r in key.read()] == [str(renamed)]
    other, _ = Pseudonyms(tmp_path / "other key", home).disguise(Entry(str(renamed)))
    assert other.known.slide_id != first.known.slide_id


def test_only_this_user_reads_the_key(named: Path, tmp_path: Path) -> None:
    Pseudonyms(tmp_path / "key", tmp_path / "home").disguise(Entry(str(named / "Quimby_MRN-4711.svs")))
    for path, mode in (
        (tmp_path / "key", 0o700),
        (tmp_path / "key" / "secret", 0o600),
        (tmp_path / "key" / "key.csv", 0o600),
    ):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode, path
    with pytest.raises(StorageError, match="must lie apart from the data root"):
        Pseudonyms(tmp_path / "home" / "key", tmp_path / "home")


def test_scans_of_several_files(tmp_path: Path) -> None:
    key, image = Pseudonyms(tmp_path / "key", tmp_path / "home"), tissue_image(512, 512)
    for scan in (
        mirax(tmp_path, tissue_image(1024, 1536)),
        dicom(tmp_path / "d", image) if _made(tmp_path / "d") else None,
    ):
        assert scan is not None
        entry, _ = key.disguise(Entry(str(scan)))
        row = Registry(Store(tmp_path / "home")).add(entry.scan, slide_id=entry.known.slide_id)
        with row.open() as slide:
            slide.thumbnail(64)
    (tmp_path / "v").mkdir()
    with pytest.raises(SlideError, match="files that name each other"):
        key.disguise(Entry(str(vms(tmp_path / "v", tissue_image(1024, 1536)))))


def _made(folder: Path) -> bool:
    folder.mkdir()
    return True


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--id", "mine"], "has the id mine; with --pseudonymize, give none"),
        (["--mpp", "spots"], "give mpp as a number"),
        (["--spots", "nothere.h5ad"], "nothere.h5ad: no such file or folder"),
    ],
)
def test_what_cannot_be_pseudonymized_is_said(
    tmp_path: Path, options: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STPATH_PSEUDONYM_FOLDER", str(tmp_path / "key"))
    scan = write_tiff(tmp_path / "a.tif", tissue_image(300, 300))
    ran = command("add", scan, "--pseudonymize", "--home", tmp_path / "home", *options)
    assert ran.exit_code != 0
    assert why in ran.stderr
