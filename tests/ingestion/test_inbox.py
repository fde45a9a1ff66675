"""The inbox: what is listed, what is registered, what goes into quarantine, and what is tried again."""

import os
import shutil
from pathlib import Path

import pytest

from stpath_assets.errors import SettingsError
from stpath_assets.ingestion import (
    Arrival,
    choose_arrivals,
    done_of,
    forget_gone,
    inbox_folders,
    list_inbox,
    read_inbox,
    read_quarantine,
    register_arrivals,
    registering,
)
from stpath_assets.ingestion.decisions import Memory
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa


@pytest.fixture
def inbox(empty_store: Store) -> Path:
    """An empty inbox."""
    folder = empty_store.home / "inbox"
    folder.mkdir()
    return folder


def listed(inbox: Path) -> list[Arrival]:
    return list_inbox([inbox]).arrivals


def left(store: Store, inbox: Path) -> list[str]:
    """The names of scans that a second look would register."""
    arrivals = listed(inbox)
    _, memory = choose_arrivals(arrivals, done_of(store, arrivals), Memory(), 99)
    chosen, _ = choose_arrivals(arrivals, done_of(store, arrivals), memory, 99)
    return [Path(a.entry.scan).name for a in chosen]


def register(store: Store, inbox: Path) -> tuple[list[str], list[str]]:
    """Register what is left. Returns the ids of slides, and the reasons of what is in quarantine."""
    names = left(store, inbox)
    rows, refused = register_arrivals(store, [a for a in listed(inbox) if Path(a.entry.scan).name in names])
    return [row.slide_id for row in rows], [q.reason for q in refused]


def draw(path: Path, seed: int = 0) -> Path:
    return write_tiff(path, tissue_image(400, 500, seed=seed))


def test_scans_are_registered_with_what_is_known_of_them_and_only_once(empty_store: Store, inbox: Path) -> None:
    draw(inbox / "a.tif")
    (inbox / "trial").mkdir()
    draw(inbox / "trial" / "b.tif", 1)
    (inbox / "trial" / "manifest.csv").write_text("file,slide_id,organ,cohort\nb.tif,B7,Brain,trial\n")
    (inbox / "a.yaml").write_text("tech: Visium\n")
    assert left(empty_store, inbox) == ["a.tif", "b.tif"]
    assert register(empty_store, inbox) == (["a", "B7"], [])
    assert left(empty_store, inbox) == []
    b7, a = Registry(empty_store).all()
    assert (b7.slide_id, b7.organ, b7.cohort) == ("B7", "Brain", "trial")
    assert (a.tech, a.arrival) == ("Visium", listed(inbox)[0].digest)


def test_a_sidecar_that_arrives_or_changes_later_is_registered_alone(empty_store: Store, inbox: Path) -> None:
    draw(inbox / "a.tif")
    draw(inbox / "b.tif", 1)
    register(empty_store, inbox)
    for organ in ("Breast", "Brain"):
        (inbox / "a.tif.json").write_text(f'{{"organ": "{organ}"}}')
        assert left(empty_store, inbox) == ["a.tif"]
        assert register(empty_store, inbox) == (["a"], [])
        assert Registry(empty_store).get("a").organ == organ
    assert left(empty_store, inbox) == []


def test_what_cannot_be_registered_is_in_quarantine_until_it_changes(empty_store: Store, inbox: Path) -> None:
    (inbox / "broken.svs").write_text("no scan")
    draw(inbox / "good.tif")
    (inbox / "good.yaml").write_text("organ: Brest\n")
    ids, reasons = register(empty_store, inbox)
    assert ids == []
    assert "broken.svs: is not a readable slide" in reasons[0]
    assert f"{inbox / 'good.yaml'}: organ: STPath has no organ token 'Brest'" in reasons[1]
    assert left(empty_store, inbox) == [], "it is not tried again as it is"
    (inbox / "good.yaml").write_text("organ: Breast\n")
    draw(inbox / "broken.svs", 1)
    assert left(empty_store, inbox) == ["broken.svs", "good.tif"]
    assert register(empty_store, inbox) == (["broken", "good"], [])
    assert read_quarantine(empty_store) == {}


def test_status_shows_the_quarantine(empty_store: Store, inbox: Path) -> None:
    (inbox / "broken.svs").write_text("no scan")
    draw(inbox / "good.tif")
    register(empty_store, inbox)
    ran = sa("status", "--home", empty_store.home)
    assert ran.exit_code == 0
    assert [line.split()[:2] for line in ran.stdout.splitlines()[1:3]] == [["good", "ready"], ["broken", "quarantine"]]
    assert "broken: scan failed: broken.svs: is not a readable slide" in ran.stdout
    (inbox / "broken.svs").unlink()
    assert forget_gone(empty_store) == [str(inbox / "broken.svs")]
    assert "quarantine" not in sa("status", "--home", empty_store.home).stdout


def test_a_file_that_kills_the_process_is_tried_three_times(
    empty_store: Store, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(inbox / "deadly.tif")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registering.Registry, "add", die)
    for _ in range(registering.TRIES):
        assert left(empty_store, inbox) == ["deadly.tif"]
        with pytest.raises(KeyboardInterrupt):
            register(empty_store, inbox)
    assert left(empty_store, inbox) == []
    (scan,) = read_quarantine(empty_store).values()
    assert scan.why == f"{inbox / 'deadly.tif'}: the process died 3 times while it was read; copy or scan it again"


def test_a_moved_or_renamed_scan_stays_the_same_slide(empty_store: Store, inbox: Path) -> None:
    scan = draw(inbox / "a.tif")
    (inbox / "a.yaml").write_text("organ: Breast\n")
    register(empty_store, inbox)
    (inbox / "deep").mkdir()
    shutil.move(scan, inbox / "deep" / "renamed.tif")
    assert register(empty_store, inbox) == (["a"], [])
    row = Registry(empty_store).get("a")
    assert (row.uri, row.organ) == (str(inbox / "deep" / "renamed.tif"), "Breast")
    assert left(empty_store, inbox) == []


def test_identical_content_is_refused_once_and_named(empty_store: Store, inbox: Path) -> None:
    scan = draw(inbox / "a.tif")
    shutil.copyfile(scan, inbox / "b.tif")
    ids, (reason,) = register(empty_store, inbox)
    assert ids == ["a"]
    assert "b.tif: has the same content as slide a" in reason
    assert left(empty_store, inbox) == []


def test_another_scan_under_a_registered_path_is_refused(empty_store: Store, inbox: Path) -> None:
    draw(inbox / "a.tif")
    register(empty_store, inbox)
    draw(inbox / "a.tif", 1)
    ids, (reason,) = register(empty_store, inbox)
    assert ids == []
    assert "is now another scan" in reason
    assert left(empty_store, inbox) == []


def test_a_retired_scan_is_not_brought_back(empty_store: Store, inbox: Path) -> None:
    draw(inbox / "a.tif")
    register(empty_store, inbox)
    Registry(empty_store).retire("a")
    (inbox / "a.yaml").write_text("organ: Breast\n")
    assert left(empty_store, inbox) == []


def test_a_scan_that_was_added_by_hand_is_not_registered_again(empty_store: Store, inbox: Path) -> None:
    Registry(empty_store).add(draw(inbox / "a.tif"), organ="Lung")
    assert left(empty_store, inbox) == []


def test_a_file_that_grows_or_is_empty_is_not_complete(empty_store: Store, inbox: Path) -> None:
    whole = draw(inbox.parent / "a.tif").read_bytes()
    (inbox / "a.tif").touch()
    assert listed(inbox) == []
    (inbox / "a.tif").write_bytes(whole[:5000])
    _, memory = choose_arrivals(listed(inbox), {}, Memory(), 9)
    with (inbox / "a.tif").open("ab") as file:
        file.write(whole[5000:])
    chosen, memory = choose_arrivals(listed(inbox), {}, memory, 9)
    assert chosen == []
    chosen, _ = choose_arrivals(listed(inbox), {}, memory, 9)
    assert len(chosen) == 1


def test_links_that_lead_back_and_folders_that_cannot_be_read_cost_the_others_nothing(inbox: Path) -> None:
    draw(inbox / "a.tif")
    (inbox / "round").symlink_to(inbox)
    (inbox / "nowhere.tif").symlink_to(inbox / "not there.tif")
    (inbox / "itself.tif").symlink_to(inbox / "itself.tif")
    (inbox / "closed").mkdir(mode=0)
    found = list_inbox([inbox])
    assert [Path(a.entry.scan).name for a in found.arrivals] == ["a.tif"]
    assert any(p.startswith(f"{inbox / 'itself.tif'}: cannot be read (Too many") for p in found.problems)
    assert len(list_inbox([inbox, inbox]).arrivals) == 1, "a folder that is named twice is watched once"
    if os.geteuid():  # nothing is closed to root
        assert any("closed: cannot be read" in p for p in found.problems)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a.svs", "b.tif", "d.svs"]),
        ("*.svs", ["a.svs", "d.svs"]),
        ("trial/*,b.*", ["b.tif", "d.svs"]),
        ("*.czi", []),
    ],
)
def test_scans_can_be_chosen_by_pattern(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    inbox = tmp_path / "home" / "inbox"
    (inbox / "trial" / "deep").mkdir(parents=True)
    for name in ("a.svs", "b.tif", "trial/deep/d.svs"):
        (inbox / name).write_text("x")
    found = read_inbox(load_settings(tmp_path / "home", inbox_pattern=pattern))
    assert [Path(a.entry.scan).name for a in found.arrivals] == expected
    with pytest.raises(SettingsError, match=r"^inbox_pattern: holds no pattern"):
        read_inbox(load_settings(tmp_path / "home", inbox_pattern=" ,"))


def test_several_folders_can_be_watched(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "home")
    assert inbox_folders(settings) == [settings.home / "inbox"]
    settings = load_settings(tmp_path / "home", inbox=f"{tmp_path}/x, {tmp_path}/y")
    assert inbox_folders(settings) == [tmp_path / "x", tmp_path / "y"]
    assert list_inbox(inbox_folders(settings)).arrivals == [], "they need not be there yet"
    assert inbox_folders(load_settings(tmp_path / "home", inbox="scans")) == [tmp_path / "home" / "scans"]
    folders = inbox_folders(load_settings(tmp_path / "home", inbox=f"{tmp_path}, s3://bucket/scans/"))
    assert [str(folder) for folder in folders] == [str(tmp_path), "s3://bucket/scans"]
    with pytest.raises(
        SettingsError, match=r"^inbox: scans: its URL holds a password or a token, which would be stored"
    ):
        inbox_folders(load_settings(tmp_path / "home", inbox="sftp://me:word@host/scans"))
