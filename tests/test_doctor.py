"""The doctor finds what is wrong, says it in one line with what to do, and finds nothing where all is well."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import dagster as dg
import huggingface_hub
import numpy as np
import psutil
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torchvision import transforms

from stpath_assets.cli import main
from stpath_assets.defs.doctor import records, release_slots
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.processes import process_of
from stpath_assets.doctor import Check, checks, compare_with_published, root
from stpath_assets.doctor.models import read_tile
from stpath_assets.features.encoders import gigapath
from stpath_assets.features.parts import Parts
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Home, Store
from stpath_assets.storage.stage import add_files
from stpath_assets.tiles import TileParameters, store_tiles
from tests.conftest import tissue_image, write_tiff
from tests.features.test_gigapath import SMALL, small_model

GOLDEN = Path(__file__).parent / "prediction" / "golden"


def sa(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def found(settings: Settings) -> dict[str, Check]:
    by_name = {c.name: c for c in checks(settings)}
    assert all("\n" not in c.said + c.todo for c in by_name.values())
    return by_name


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data root of the demo encoder with one slide that has tiles."""
    home = tmp_path / "home"
    assert sa("add", write_tiff(tmp_path / "a.tif", tissue_image()), "--home", home).exit_code == 0
    (home / "settings.toml").write_text('encoder = "demo"\n')
    return home


@pytest.fixture
def settings(home: Path) -> Settings:
    return load_settings(home)


# ---- the command


def test_where_all_is_well(home: Path) -> None:
    ran = sa("doctor", "--home", home)
    assert ran.exit_code == 0, ran.stdout
    notes = [line.split(":")[0] for line in ran.stdout.splitlines() if not line.startswith("ok ")]
    assert notes == ["note   up to date"], "the slide was registered and not yet run"
    as_json = json.loads(sa("doctor", "--home", home, "--json").stdout)
    assert all(c["ok"] for c in as_json)
    assert {"settings", "dagster", "data root", "tables", "device", "served encoder"} <= {c["name"] for c in as_json}


def test_without_weights_it_says_how_to_get_them(tmp_path: Path) -> None:
    ran = sa("doctor", "--home", tmp_path / "new")
    assert ran.exit_code == 1
    wrong = [line for line in ran.stdout.splitlines() if line.startswith("wrong")]
    assert [line.split(":")[0] for line in wrong] == [
        "wrong  data root",
        "wrong  gigapath weights",
        "wrong  stpath weights",
        "wrong  stpath vocabulary",
    ]
    assert "HF_TOKEN" in wrong[1]
    assert "STPATH_GIGAPATH_WEIGHTS" in wrong[1]
    assert not (tmp_path / "new").exists(), "a doctor makes no data root"


def test_a_wrong_setting_is_what_it_says(home: Path) -> None:
    (home / "settings.toml").write_text('encoder = "uni"\n')
    ran = sa("doctor", "--home", home, "--json")
    assert ran.exit_code == 1
    assert [c["name"] for c in json.loads(ran.stdout) if not c["ok"]] == ["settings"]


@pytest.mark.parametrize("given", [["--gigapath"], ["--tile", "a.png"], ["--gigapath", "--tile", "a.png"]])
def test_a_comparison_needs_both_files(given: list[str]) -> None:
    assert sa("doctor", *given).exit_code == 2


# ---- the data root


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    check = root.data_root(Home(tmp_path / "nowhere"))
    assert not check.ok
    assert "no such data root" in check.said
    assert "STPATH_HOME" in check.todo
    assert not (tmp_path / "nowhere").exists()


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert root.data_root(Home(tmp_path)).ok
    monkeypatch.setattr(root, "LEAST_FREE", 10**18)
    assert not root.data_root(Home(tmp_path)).ok


@pytest.fixture
def tiled(home: Path) -> Store:
    """The data root with the slide's tiles."""
    store = Store(home)
    store_tiles(store, Registry(store).get("a"), TileParameters())
    return store


@pytest.mark.parametrize("damage", ["cut", "empty", "footer", "data", "bit", "gone"])
def test_a_damaged_part_is_named_and_made_again(tiled: Store, damage: str) -> None:
    path = tiled.path("tile_grids", "a")
    whole = path.read_bytes()
    assert root.tables(tiled).said == "1 parts in 1 files, their checksums hold"
    changed = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "footer": whole[:-20] + b"x" * 20,
        # Of the first column's compressed page.
        "data": whole[:30] + bytes(b ^ 255 for b in whole[30:60]) + whole[60:],
        "bit": whole[:100] + bytes([whole[100] ^ 4]) + whole[101:],
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    check = root.tables(tiled)
    assert not check.ok
    assert "1 of 1 parts are damaged: a tile_grids: its file is" in check.said
    assert "delete" not in check.said + check.todo, "what is registered cannot be made again by deleting"
    assert "stpath-assets run a" in check.todo
    assert root.tables(tiled, checksums=False).ok is False, "it is known from then on"
    assert store_tiles(tiled, Registry(tiled).get("a"), TileParameters()).recomputed
    assert root.tables(tiled).ok


def test_without_checksums_only_sizes_are_looked_at(tiled: Store) -> None:
    path = tiled.path("tile_grids", "a")
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    assert root.tables(tiled, checksums=False).ok
    path.write_bytes(whole[:100])
    assert not root.tables(tiled, checksums=False).ok


def test_rows_that_are_twice_in_a_table_are_found(tiled: Store) -> None:
    assert root.counts(tiled).ok
    copy = tiled.path("tile_grids", "a").with_name("copy.parquet")
    copy.write_bytes(tiled.path("tile_grids", "a").read_bytes())
    tiled.lake.transact(lambda c: add_files(c, "tile_grids", [str(copy)]))
    check = root.counts(tiled)
    assert not check.ok
    assert "a tile_grids" in check.said


def test_files_that_the_lake_does_not_know(tiled: Store) -> None:
    assert root.unknown_files(tiled) == Check("unknown files", True, "none")
    path = tiled.path("tile_grids", "a")
    path.with_name("backup.parquet").write_bytes(path.read_bytes())
    check = root.unknown_files(tiled)
    assert check.said.startswith("1 files that the lake does not name")
    assert "maintain" in check.todo


@pytest.mark.parametrize("change", ["gone", "replaced"])
def test_scans_that_are_gone_or_replaced(tiled: Store, change: str) -> None:
    assert root.scans(tiled).ok
    scan = Path(Registry(tiled).get("a").uri)
    if change == "gone":
        scan.unlink()
    else:
        scan.write_bytes(scan.read_bytes() + b"x")
    check = root.scans(tiled)
    assert not check.ok
    assert f"a: {change}: {scan}" in check.said


def test_slides_that_are_behind(tiled: Store) -> None:
    check = root.up_to_date(tiled, load_settings(tiled.home))
    assert check.ok
    assert check.said == "1 of 1 slides are not: a"
    assert "status" in check.todo


def test_files_of_dead_writers_are_found_and_those_of_living_ones_left_alone(home: Path) -> None:
    folder = home / "tables" / "tile_grids"
    folder.mkdir()

    def draft(host: str, pid: int, age_s: float = 0.0) -> Path:
        path = folder / f".a.parquet.{host}.{pid}.0123abcd.tmp"
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    draft(socket.gethostname(), os.getpid(), 10 * root.OLD_S)
    draft("another.host", 1)
    assert root.leftovers(home).said == "none"
    dead = [draft(socket.gethostname(), 2**22 + 7), draft("another.host", 2, 2 * root.OLD_S)]
    check = root.leftovers(home)
    assert check.ok
    assert check.said.startswith("2 files of killed writers, 10 bytes")
    assert check.todo
    assert all(p.exists() for p in dead), "nothing is deleted"


def test_pieces_of_killed_runs_are_told_apart(home: Path) -> None:
    assert root.unfinished(Store(home)) == Check("unfinished features", True, "none")
    for slide_id in ("a", "gone"):
        Parts(Store(home), slide_id, "0" * 64, 16, 128).write(0, np.zeros((128, 1536), np.float32))
    check = root.unfinished(Store(home))
    assert check.ok
    assert check.said == "1 slides, 786.6 kB: the next run goes on from there; 1 of slides that are gone, 786.6 kB"
    assert check.todo.endswith("gigapath_features/gone")
    Registry(Store(home)).retire("a")
    assert "2 of slides that are gone" in root.unfinished(Store(home)).said


# ---- what computes


def test_a_device_that_is_not_there(home: Path) -> None:
    check = found(load_settings(home, device="cuda:99"))["device"]
    assert not check.ok
    assert "STPATH_DEVICE" in check.said


@pytest.fixture
def real(tmp_path: Path) -> Settings:
    """Settings with local files for both models, small ones."""
    (tmp_path / "stfm.pth").write_bytes((GOLDEN / "stfm.pth").read_bytes())
    torch.save(small_model().state_dict(), tmp_path / "pytorch_model.bin")
    return load_settings(
        tmp_path / "home",
        weights=tmp_path / "stfm.pth",
        vocabulary=GOLDEN / "symbol2ensembl.json",
        gigapath_weights=tmp_path / "pytorch_model.bin",
    )


def test_weights_that_were_damaged_since_they_were_hashed(real: Settings) -> None:
    assert all(c.ok for c in found(real).values() if c.name != "data root")
    assert found(real)["gigapath weights"].said.endswith("as before")
    path = real.gigapath_weights
    assert path is not None
    state = path.stat()
    with path.open("r+b") as f:
        f.seek(5000)
        f.write(b"damage")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    for _ in range(2):  # it does not come to believe what it found
        check = found(real)["gigapath weights"]
        assert not check.ok
        assert "its content changed" in check.said
        assert "fetch it again" in check.todo
    path.touch()
    assert found(real)["gigapath weights"].ok, "changed on purpose"


def test_a_vocabulary_of_other_weights(real: Settings, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"EPCAM": "ENSG1"}')
    check = found(load_settings(real.home, weights=real.weights, vocabulary=tmp_path / "other.json"))[
        "stpath vocabulary"
    ]
    assert not check.ok
    assert "gene columns" in check.said


def test_a_file_that_is_not_there(real: Settings, tmp_path: Path) -> None:
    by_name = found(load_settings(real.home, weights=tmp_path / "none.pth", vocabulary=real.vocabulary))
    assert "no such weights file; check STPATH_WEIGHTS" in by_name["stpath weights"].said


def test_a_served_encoder_that_does_not_answer(home: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        check = found(load_settings(home, encoder_url=f"http://127.0.0.1:{unused.getsockname()[1]}"))["served encoder"]
    assert not check.ok
    assert "no encoder answers at http://127.0.0.1" in check.said


# ---- the published pair, with a small model's own


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A tile, and its embedding by timm and torchvision as the model's card has it; the architecture is small."""
    monkeypatch.setattr(gigapath, "ARCHITECTURE", {**gigapath.ARCHITECTURE, **SMALL})
    pixels = np.random.default_rng(3).integers(0, 256, (256, 300, 3), np.uint8)
    Image.fromarray(pixels).resize((400, 341)).save(tmp_path / "tile.png")
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
    )
    model = timm.create_model(pretrained=False, **gigapath.ARCHITECTURE)
    model.load_state_dict(small_model().state_dict())
    with torch.inference_mode():
        embedding = model.eval()(transform(Image.open(tmp_path / "tile.png").convert("RGB"))[None])
    torch.save(embedding.clone(), tmp_path / "tile.pt")
    return tmp_path / "tile.png", tmp_path / "tile.pt"


def test_the_encoder_gives_the_published_embedding(real: Settings, pair: tuple[Path, Path]) -> None:
    assert read_tile(pair[0]).shape == (224, 224, 3)
    check = compare_with_published(real, *pair)
    assert check.ok, check.said
    assert "cosine similarity 1.000000" in check.said
    assert "largest difference" in check.said


def test_another_embedding_is_not_the_tiles(real: Settings, pair: tuple[Path, Path]) -> None:
    tile, embedding = pair
    wrong: list[tuple[Any, str]] = [
        (torch.load(embedding, weights_only=True) + torch.linspace(0, 0.3, 96), "at most 0.01 are needed"),
        (torch.full((96,), torch.nan), "at most 0.01 are needed"),
        (torch.ones(1536), "has 1536 numbers, the encoder gives 96"),
        (torch.ones(2, 96), "is not the embedding of one tile"),
        ({"a": 1}, "is not the embedding of one tile"),
    ]
    for value, said in wrong:
        torch.save(value, embedding)
        check = compare_with_published(real, tile, embedding)
        assert not check.ok
        assert said in check.said
    embedding.write_bytes(b"no tensor")
    assert "cannot be read as a tensor" in compare_with_published(real, tile, embedding).said


def test_a_tile_that_is_no_picture(real: Settings, pair: tuple[Path, Path]) -> None:
    pair[0].write_text("no picture")
    assert "cannot be read as a picture" in compare_with_published(real, *pair).said


def test_without_weights_there_is_nothing_to_compare(home: Path, pair: tuple[Path, Path]) -> None:
    ran = sa("doctor", "--home", home, "--gigapath", "--tile", pair[0], "--embedding", pair[1])
    assert ran.exit_code == 1
    assert ran.stdout.splitlines()[-1].startswith("wrong  gigapath: pytorch_model.bin of prov-gigapath/prov-gigapath")


# ---- Dagster's records


def test_dead_runs_are_ended_and_their_slots_given_back(settings: Settings) -> None:
    with instance(settings) as opened:
        storage = opened.event_log_storage
        storage.set_concurrency_slots("gpu", 4)
        dead, over, busy = (
            opened.add_run(dg.DagsterRun("process_slide", status=status, tags={"stpath/process": process}))
            for status, process in (
                (dg.DagsterRunStatus.STARTED, f"{socket.gethostname()}/{2**22 + 7}/1"),
                (dg.DagsterRunStatus.FAILURE, ""),
                (dg.DagsterRunStatus.STARTED, "another.host/1/1"),
            )
        )
        for run_id in (dead.run_id, over.run_id, busy.run_id, "deleted"):
            assert storage.claim_concurrency_slot("gpu", run_id, "gigapath_features").is_claimed
    check = records(settings)
    assert check.ok
    assert f"ended 1 that were dead: {dead.run_id[:8]}" in check.said
    assert "freed the pool slots of 2 runs that are over" in check.said
    with instance(settings) as opened:
        assert opened.event_log_storage.get_concurrency_info("gpu").active_run_ids == {busy.run_id}
        assert opened.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE
        assert release_slots(opened) == []
    assert records(settings).said == "3 runs on record, 1 under way"


def test_a_process_that_works_for_a_run_that_is_over_is_killed(settings: Settings) -> None:
    with subprocess.Popen(["sleep", "100"]) as worker, subprocess.Popen(["sleep", "100"]) as other:
        with instance(settings) as opened:
            for process, tags in ((worker, {".dagster/grpc_info": "{}"}), (other, {})):
                told = {"stpath/process": process_of(psutil.Process(process.pid)), **tags}
                opened.add_run(dg.DagsterRun("process_slide", status=dg.DagsterRunStatus.FAILURE, tags=told))
        assert "killed the processes of 1 runs that are over" in records(settings).said
        assert worker.wait(5) == -signal.SIGKILL
        assert other.poll() is None, "a notebook goes on after its run"
        other.kill()


def test_partitions_are_made_equal_to_the_slides(settings: Settings) -> None:
    with instance(settings) as opened:
        opened.delete_dynamic_partition("slides", "a")
        opened.add_dynamic_partitions("slides", ["nobody"])
    assert "added 1 partitions that were missing, removed 1 without a slide" in records(settings).said
    with instance(settings) as opened:
        assert opened.get_dynamic_partitions("slides") == ["a"]


@pytest.mark.parametrize("damage", ["yaml", "setting", "database"])
def test_records_that_do_not_open(settings: Settings, damage: str) -> None:
    folder = settings.home / "dagster"
    if damage == "database":
        databases = list(folder.rglob("runs.db"))
        assert databases
        for path in databases:
            path.write_bytes(b"no database" * 1000)
    else:
        (folder / "dagster.yaml").write_text("telemetry: [" if damage == "yaml" else "nosuch: 1\n")
    check = records(settings)
    assert not check.ok
    assert "\n" not in check.said
    assert "dagster.yaml" in check.todo
