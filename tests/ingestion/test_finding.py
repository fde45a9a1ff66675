"""The scans of a folder: which files are, and what is known of them."""

import os
from pathlib import Path

import pytest

from stpath_assets.ingestion import Known, find_scans


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(folder: Path) -> list[str]:
    return [os.path.relpath(e.scan, folder) for e in find_scans(folder).entries]


def test_scans_are_found_below_a_folder_and_the_rest_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "b.SVS", tmp_path / "deep" / "er" / "a.ndpi", tmp_path / "notes.txt", tmp_path / "macro.jpg")
    touch(tmp_path / ".hidden" / "c.svs", tmp_path / ".d.svs")
    found = find_scans(tmp_path)
    assert names(tmp_path) == ["b.SVS", "deep/er/a.ndpi"]
    assert (found.others, found.problems) == (2, [])


def test_a_sidecar_or_a_manifest_says_what_is_known_and_makes_an_image_a_scan(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs", tmp_path / "b.svs", tmp_path / "c.png", tmp_path / "d.png", tmp_path / "b.h5ad")
    (tmp_path / "a.svs.yaml").write_text("organ: Brain\n")
    (tmp_path / "c.json").write_text('{"mpp": 0.5}')
    (tmp_path / "manifest.csv").write_text("file,organ,spots\na.svs,Breast,\nb.svs,Breast,b.h5ad\n")
    found = find_scans(tmp_path)
    assert {Path(e.scan).name: e.known for e in found.entries} == {
        "a.svs": Known(organ="Brain"),
        "b.svs": Known(organ="Breast", spots=str(tmp_path / "b.h5ad")),
        "c.png": Known(mpp=0.5),
    }
    assert (found.others, found.problems) == (1, []), "d.png; sidecars, the manifest and spots are no other files"


def test_a_wrong_sidecar_leaves_its_scan_out_and_says_so(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs", tmp_path / "b.svs")
    (tmp_path / "a.yaml").write_text("organ: Brest")
    found = find_scans(tmp_path)
    assert names(tmp_path) == ["b.svs"]
    assert "a.yaml: organ: STPath has no organ token 'Brest'" in found.problems[0]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.svs", tmp_path / "elsewhere" / "b.svs")
    (tmp_path / "in" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "broken.svs").symlink_to(tmp_path / "nothing")
    assert names(tmp_path / "in") == ["a.svs", "broken.svs", "there/b.svs"]


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.svs", tmp_path / "closed" / "b.svs")
    scandir = os.scandir

    def refuse(path: str) -> "os._ScandirIterator[str]":
        if str(path).endswith("closed"):
            raise PermissionError(
                13, "Permission denied", str(path)
            )  # root, as in many containers, may read everything
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_scans(tmp_path)
    assert [Path(e.scan).name for e in found.entries] == ["a.svs"]
    assert "closed: cannot be read (Permission denied); it is left out" in found.problems[0]
