"""Loading is strict: a file is the published layout in every tensor, or it is refused by name."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stpath_assets.errors import WeightsError
from stpath_assets.prediction import STPath
from stpath_assets.storage.fingerprint import sha256_of_file
from tests.prediction.conftest import VOCABULARY, WEIGHTS, inputs

State = dict[str, Tensor]


def changed(tmp_path: Path, change: Callable[[State], object]) -> Path:
    state = torch.load(WEIGHTS, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "stfm.pth")
    return tmp_path / "stfm.pth"


def test_sizes_are_read_off_the_tensors(model: STPath) -> None:
    s = model.sizes
    assert (s.features, s.d_model, s.layers, s.heads, s.mlp, s.genes) == (1536, 64, 2, 2, 128, 302)


def test_the_files_are_known_by_their_sha256(model: STPath) -> None:
    assert model.sha256 == sha256_of_file(WEIGHTS)
    assert model.vocabulary.sha256 == sha256_of_file(VOCABULARY)


def test_safetensors_and_half_precision_files_load_alike(model: STPath, tmp_path: Path) -> None:
    state = torch.load(WEIGHTS, weights_only=True)
    save_file(state, tmp_path / "stfm.safetensors")
    features, xy = inputs(5)
    expected = model.predict(features, xy, "Breast")
    np.testing.assert_array_equal(
        STPath.load(tmp_path / "stfm.safetensors", VOCABULARY).predict(features, xy, "Breast"), expected
    )
    save_file({k: v.to(torch.bfloat16) for k, v in state.items()}, tmp_path / "half.safetensors")
    half = STPath.load(tmp_path / "half.safetensors", VOCABULARY)
    assert all(v.dtype == torch.float32 for v in half.state.values())
    np.testing.assert_allclose(half.predict(features, xy, "Breast"), expected, atol=0.1)


FC1 = "model.blks.1.mlp.fc1.weight"


def _double(state: State, key: str) -> None:
    state[key] = torch.cat([state[key], state[key]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop(FC1), f"1 tensors missing, 0 unknown, first {FC1}; fetch"),
        (lambda s: s.update(extra=torch.zeros(1)), "0 tensors missing, 1 unknown, first extra"),
        (lambda s: s.pop("gene_exp_head.1.bias"), "first gene_exp_head.1.bias"),
        (lambda s: s.pop("input_encoder.image_embed.weight"), "is not an STPath checkpoint"),
        (lambda s: s.clear(), "is not an STPath checkpoint"),
        (
            lambda s: s.update({FC1: s[FC1].T}),
            r"fc1\.weight has shape \(64, 128\) where its other tensors need \(128, 64\)",
        ),
        (lambda s: _double(s, "input_encoder.organ_embed.weight"), r"organ_embed.weight has shape \(50, 64\)"),
        (lambda s: s[FC1].fill_(float("nan")), r"fc1\.weight holds numbers that are not finite"),
        (lambda s: s.update({"input_encoder.image_embed.weight": torch.zeros(3)}), "is not an STPath checkpoint"),
        (
            lambda s: s.update({k: torch.zeros(3, 3) for k in s if "edge_bias" in k}),
            "64 dimensions do not divide into 3 heads",
        ),
    ],
)
def test_a_layout_that_is_another_is_refused(tmp_path: Path, change: Callable[[State], object], said: str) -> None:
    with pytest.raises(WeightsError, match=said) as e:
        STPath.load(changed(tmp_path, change), VOCABULARY)
    assert str(e.value).startswith("stfm.pth: ")
    assert "\n" not in str(e.value)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"ERBB2": "ENSG1", "ESR1": "ENSG2"}')
    with pytest.raises(WeightsError, match=r"302 gene columns, its vocabulary makes 4 \(2 Ensembl ids and 2\); use"):
        STPath.load(WEIGHTS, tmp_path / "v.json")


class Evil:
    """Runs code when unpickled carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["torch.save", "pickle"]
)
def test_code_in_a_file_is_not_run(tmp_path: Path, save) -> None:
    save({"weight": Evil(tmp_path / "ran")}, tmp_path / "stfm.pth")
    with pytest.raises(WeightsError, match=r"stfm\.pth: cannot be read as weights"):
        STPath.load(tmp_path / "stfm.pth", VOCABULARY)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not weights"])
@pytest.mark.parametrize("name", ["stfm.pth", "stfm.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or no plain checkpoint, fetch it again") as e:
        STPath.load(tmp_path / name, VOCABULARY)
    assert "\n" not in str(e.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        STPath.load(tmp_path / "stfm.pth", VOCABULARY)


def test_a_pickled_model_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "stfm.pth")
    with pytest.raises(WeightsError, match="is not a plain state dict"):
        STPath.load(tmp_path / "stfm.pth", VOCABULARY)
