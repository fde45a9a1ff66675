"""Where models compute: what `auto` comes to, what a machine lacks, and one GPU for each run of a host with several."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stpath_assets import weights
from stpath_assets.errors import WeightsError


def test_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.choose_device("cpu") == "cpu"
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(weights.device, "_has_cuda_driver", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert weights.choose_device("auto") == expected
    monkeypatch.setattr(weights.device, "_has_cuda_driver", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch is asked without a driver"))
    assert weights.choose_device("auto") == "cpu"


class Gpus:
    """Some GPUs, as PyTorch shows them."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names

    def show(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(tempfile, "gettempdir", lambda: str(self.folder))
        patch.setattr(weights.device, "_has_cuda_driver", lambda: True)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: len(self.names))
        patch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=self.names[i]))
        patch.setattr(torch.cuda, "mem_get_info", lambda i: (i, 9))


def _hold(gpus: Gpus, said: Connection) -> None:
    gpus.show(pytest.MonkeyPatch())
    with weights.own_gpu():
        said.send(weights.choose_device("auto"))
        time.sleep(60)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[list[str]], tuple[str, Process]]]:
    """Starts another process that takes a GPU: `device, process = other(names)`."""
    started, spawn = list[Process](), multiprocessing.get_context("fork")

    def start(names: list[str]) -> tuple[str, Process]:
        here, there = spawn.Pipe()
        process = spawn.Process(target=_hold, args=(Gpus(tmp_path, names), there), daemon=True)
        process.start()
        started.append(process)
        return here.recv(), process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_each_run_of_a_host_with_several_gpus_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[list[str]], tuple[str, Process]]
) -> None:
    first, process = other(["a", "b"])
    assert first == "cuda:0"
    Gpus(tmp_path, ["a", "b"]).show(monkeypatch)
    assert weights.choose_device("auto") == "cuda", "outside a slot nothing is taken"
    with weights.own_gpu():
        assert weights.choose_device("auto") == "cuda:1"
        assert weights.choose_device("auto") == weights.choose_device("cuda") == "cuda:1", "it stays the same"
        assert weights.choose_device("cpu") == "cpu"
        assert other(["b", "a"])[0] == "cuda:1", "all are taken: the one with the most free memory is shared"
    with weights.own_gpu():
        assert weights.choose_device("auto") == "cuda:1", "a slot that has ended holds nothing"
    process.kill()
    process.join()
    with weights.own_gpu():
        assert weights.choose_device("auto") == "cuda:0", "neither does a killed process"


def test_the_same_gpu_has_other_numbers_in_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Callable[[list[str]], tuple[str, Process]]
) -> None:
    assert other(["a", "b"])[0] == "cuda:0"
    Gpus(tmp_path, ["b", "a"]).show(monkeypatch)
    with weights.own_gpu():
        assert weights.choose_device("auto") == "cuda:0"


def test_one_gpu_is_not_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(tmp_path, ["a"]).show(monkeypatch)
    with weights.own_gpu():
        assert weights.choose_device("auto") == "cuda"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(WeightsError, match=f"device {name!r} is not available on this machine; set STPATH_DEVICE"):
        weights.choose_device(name)
