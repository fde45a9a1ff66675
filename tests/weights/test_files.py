"""Weights: local files before the hub, steps to take where there is neither, and no checkpoint that runs code."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from stpath_assets import weights
from stpath_assets.errors import WeightsError

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float16)}


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(WeightsError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- where they are


def test_a_local_file_is_taken_and_nothing_else_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a socket was opened"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    (tmp_path / "w.bin").touch()
    assert weights.locate(tmp_path / "w.bin", weights.GIGAPATH) == tmp_path / "w.bin"


def test_a_local_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.bin").touch()
    assert weights.locate(Path("~/w.bin"), weights.STPATH) == tmp_path / "w.bin"


@pytest.mark.parametrize("hub", [weights.GIGAPATH, weights.STPATH])
def test_a_local_file_that_is_not_there_is_not_replaced_by_the_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: weights.HubFile
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    assert (
        refusal(weights.locate, tmp_path / "w.bin", hub)
        == f"{tmp_path / 'w.bin'}: no such weights file; check {hub.setting}"
    )
    assert "no such weights file" in refusal(weights.locate, tmp_path, hub)


def test_the_hub_is_asked_for_the_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*arguments: str, **options: str) -> str:
        asked.append((*arguments, options))
        return str(tmp_path / "cached.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert weights.locate(None, weights.GIGAPATH) == tmp_path / "cached.bin"
    hub = weights.GIGAPATH
    assert asked == [("prov-gigapath/prov-gigapath", "pytorch_model.bin", {"revision": hub.revision})]
    assert len(hub.revision) == 40, "a commit, not a branch that moves"


def test_offline_with_an_empty_cache_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    """In a new process: the hub's client reads HF_HOME and HF_HUB_OFFLINE when it is imported."""
    code = (
        "import socket\n"
        "def refuse(*_): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from stpath_assets import weights\n"
        "from stpath_assets.errors import WeightsError\n"
        "try: weights.locate(None, weights.GIGAPATH)\n"
        "except WeightsError as e: print(e)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert "not in the local cache" in result.stdout
    assert "STPATH_GIGAPATH_WEIGHTS" in result.stdout


# ---- what they hold


def test_a_state_dict_is_read_from_every_form(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "w.safetensors")
    for name in ("w.pth", "old.bin", "w.safetensors"):
        state = weights.read_state_dict(tmp_path / name)
        assert list(state) == ["a", "b"]
        for key, value in STATE.items():
            assert state[key].dtype == value.dtype
            assert torch.equal(state[key], value)


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {"model": {"a": torch.ones(1)}}, {"a": 1.0}, torch.ones(1)], ids=str
)
def test_anything_but_a_plain_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "w.pth: is not a plain state dict of tensors" in refusal(weights.read_state_dict, tmp_path / "w.pth")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    save_file(STATE, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for keep in (0, 1, 8, 40, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:keep])
            assert f"{name}: cannot be read as weights" in refusal(weights.read_state_dict, tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        assert "no such weights file" in refusal(weights.read_state_dict, tmp_path / name)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    torch.save({"a": torch.ones(1), "b": Payload()}, tmp_path / "zip.pth")
    torch.save({"b": Payload()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("zip.pth", "old.pth", "bare.pth"):
        refusal(weights.read_state_dict, tmp_path / name)
    assert not (tmp_path / "it ran").exists()
