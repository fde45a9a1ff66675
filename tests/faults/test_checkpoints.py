"""Checkpoints that would run code, or blow up: refused in one line, before anything of them is executed."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import stpath_assets
from stpath_assets import weights
from stpath_assets.errors import WeightsError
from stpath_assets.weights import bounds, read_state_dict
from tools.unsafe_calls import FOLDERS, unsafe_calls

ROOT = Path(stpath_assets.__file__).parents[1]


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def bare(path: Path, canary: Canary) -> None:
    path.write_bytes(pickle.dumps(canary))


def saved(path: Path, canary: Canary) -> None:
    torch.save({"w": canary}, path)


def saved_old(path: Path, canary: Canary) -> None:
    torch.save({"w": canary}, path, _use_new_zipfile_serialization=False)


def nested(path: Path, canary: Canary) -> None:
    torch.save(OrderedDict(w=torch.zeros(2), more=[{"deep": ({"deeper": canary},)}]), path)


def compressed(path: Path, canary: Canary) -> None:
    """A zip whose pickle is deflated, as no scanner expects."""
    torch.save({"w": canary}, path)
    with zipfile.ZipFile(path) as old:
        entries = {e.filename: old.read(e) for e in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in entries.items():
            new.writestr(name, content)


def second_pickle(path: Path, canary: Canary) -> None:
    """Behind the pickle that is read."""
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + pickle.dumps(canary))


def scripted(path: Path, canary: Canary) -> None:
    """TorchScript, which is code."""
    torch.save({"w": canary}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/code/x.py", "import os")
        archive.writestr("constants.pkl", pickle.dumps(canary))


HARMFUL = (bare, saved, saved_old, nested, compressed, scripted)


@pytest.mark.parametrize("make", HARMFUL)
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, make: Callable[[Path, Canary], None]) -> None:
    make(tmp_path / "w.pth", Canary(tmp_path / "sang"))
    with pytest.raises(WeightsError, match=r"^w\.pth: ") as error:
        read_state_dict(tmp_path / "w.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sang").exists()


@pytest.mark.parametrize("make", [bare, second_pickle])
def test_what_lies_behind_is_not_run(tmp_path: Path, make: Callable[[Path, Canary], None]) -> None:
    make(tmp_path / "w.pth", Canary(tmp_path / "sang"))
    with suppress(WeightsError):
        read_state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "sang").exists()


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "sang")))
    assert (tmp_path / "sang").exists()


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        read_state_dict(path)
    return str(error.value)


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 << 20))
    assert path.stat().st_size < 1 << 20
    assert "has compressed entries" in refusal(path)


def test_a_bomb_of_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_OPERATIONS", 2000)
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pth")
    read_state_dict(tmp_path / "w.pth")
    out = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(out, "w") as new:
        for e in old.infolist():
            content = old.read(e)
            many = content[:-1] + b"N0" * 1000 + b"."
            new.writestr(e.filename, many if e.filename.endswith("data.pkl") else content)
    (tmp_path / "many.pth").write_bytes(out.getvalue())
    assert "has more than 2,000 operations" in refusal(tmp_path / "many.pth")
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old_file = (tmp_path / "old.pth").read_bytes()
    (tmp_path / "old.pth").write_bytes(pickle.dumps(list(range(3000))) + old_file)
    assert "has more than 2,000 operations" in refusal(tmp_path / "old.pth")


def test_a_tensor_of_more_numbers_than_the_file(tmp_path: Path) -> None:
    """A stride of 0 makes a terabyte of four bytes."""
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 18)}, tmp_path / "w.pth")
    assert "w has more numbers than the file" in refusal(tmp_path / "w.pth")


def test_weights_of_another_sha256_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from stpath_assets.weights.hashes import sha256_of

    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(2)}, path)
    pinned = replace(weights.STPATH, sha256=sha256_of(path))
    assert weights.locate(path, pinned) == path
    for find in (weights.locate, weights.find_present):
        with pytest.raises(WeightsError, match="its SHA-256 is"):
            find(path, replace(pinned, sha256="0" * 64))


@pytest.mark.parametrize("revision", [None, "main", "0123abc"])
def test_the_hub_gives_only_what_a_commit_names(revision: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(WeightsError, match="set STPATH_STPATH_REVISION to the 40 digits of a commit"):
        weights.locate(
            None, weights.HubFile("a/b", "c", revision, "STPATH_WEIGHTS", revision_setting="STPATH_STPATH_REVISION")
        )


@pytest.mark.parametrize(
    "code",
    [
        "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=x)", "torch.load(p)", "torch.load(p, weights_only=False)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)", "pickle.loads(b)", "yaml.load(t, Loader)",
    ],
)  # fmt: skip
def test_calls_that_trust_a_file_are_seen(code: str) -> None:
    assert [line for line, _ in unsafe_calls(f"x = 1\n{code}")] == [2]


def test_no_call_trusts_a_file() -> None:
    """`make lint` says so too."""
    paths = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 200
    assert [(str(p), found) for p in paths for found in unsafe_calls(p.read_text())] == []
    assert (
        list(unsafe_calls("torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.safe_load(t)")) == []
    )
