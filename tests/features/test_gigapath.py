"""GigaPath's encoder on small weights of the same make: the normalization, the strict load, the real architecture's shape."""

import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms import functional

from stpath_assets.errors import FeatureError, WeightsError
from stpath_assets.features import EncoderChoice, embed
from stpath_assets.features.encoders import gigapath as module
from stpath_assets.features.encoders.gigapath import ARCHITECTURE, DIM, load
from stpath_assets.slides import open_slide
from stpath_assets.tiles import tile

SMALL: dict[str, Any] = {"depth": 1, "embed_dim": 96, "num_heads": 4}


def small_model(**overrides: Any) -> torch.nn.Module:
    """A model of the same make with random weights that matter: at 1e-5, a layer's scale would hide its block."""
    torch.manual_seed(0)
    model = timm.create_model(pretrained=False, **{**ARCHITECTURE, **SMALL, **overrides})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return small_model()


@pytest.fixture
def weights_file(model: torch.nn.Module, tmp_path: Path) -> Path:
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path / "pytorch_model.bin"


@pytest.fixture(scope="module")
def batch() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)


def test_the_forward_is_timms_on_torchvisions_normalization(
    model: torch.nn.Module, weights_file: Path, batch: npt.NDArray[np.uint8]
) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    x = torch.stack([functional.normalize(functional.to_tensor(t), mean, std) for t in batch])
    with torch.inference_mode():
        expected = model(x).numpy()
    features = load(weights_file, **SMALL).encode(batch)
    assert features.shape == (3, 96)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-2, "the features tell the tiles apart"


def test_features_do_not_depend_on_the_batch(weights_file: Path, batch: npt.NDArray[np.uint8]) -> None:
    encoder = load(weights_file, **SMALL)
    alone = np.concatenate([encoder.encode(t[None]) for t in batch])
    np.testing.assert_allclose(alone, encoder.encode(batch), atol=1e-5)


def test_safetensors_and_half_precision_are_read_too(
    model: torch.nn.Module, weights_file: Path, tmp_path: Path, batch: npt.NDArray[np.uint8]
) -> None:
    expected = load(weights_file, **SMALL).encode(batch)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors", **SMALL).encode(batch), expected)
    torch.save({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "half.bin")
    half = load(tmp_path / "half.bin", **SMALL)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(half.encode(batch), expected, atol=2e-2)


def test_tiles_of_another_size_are_refused(weights_file: Path) -> None:
    encoder = load(weights_file, **SMALL)
    for shape in ((1, 256, 256, 3), (1, 224, 224, 4), (224, 224, 3)):
        with pytest.raises(FeatureError, match="GigaPath takes tiles of 224 px"):
            encoder.encode(np.zeros(shape, np.uint8))


def test_local_files_open_no_socket(weights_file: Path, monkeypatch: pytest.MonkeyPatch, drawn_slide: Path) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(module, "ARCHITECTURE", {**ARCHITECTURE, **SMALL})
    monkeypatch.setattr("stpath_assets.features.embedding.DIM", 96)
    monkeypatch.setenv("STPATH_GIGAPATH_WEIGHTS", str(weights_file))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with open_slide(drawn_slide) as slide:
        features = embed(tile(slide, min_tissue=0.9), "gigapath", batch_size=4, device="cpu")
    assert features.encoder == "gigapath"
    assert len(np.unique(features.matrix, axis=0)) == len(features)


def test_one_load_serves_every_slide(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ARCHITECTURE", {**ARCHITECTURE, **SMALL})
    choice = EncoderChoice("gigapath", weights_file, "cpu")
    assert choice.load() is choice.load()


# ---- what is no GigaPath


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(path, **SMALL)
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_other_tensors_are_refused_by_name(model: torch.nn.Module, tmp_path: Path) -> None:
    file, state = tmp_path / "w.bin", model.state_dict()
    cases = {
        "missing": {k: v for k, v in state.items() if k != "cls_token"},
        "more": {**state, "a.head": torch.zeros(3)},
        "reshaped": {**state, "pos_embed": torch.zeros(1, 5, 96)},
    }
    for case, first in (("missing", "cls_token"), ("more", "a.head"), ("reshaped", "pos_embed")):
        torch.save(cases[case], file)
        assert (
            f"is not GigaPath's tile encoder: 1 tensors missing, unknown or of another shape, first {first}"
            in refusal(file)
        )


def test_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(small_model(depth=2).state_dict(), tmp_path / "w.bin")
    assert "is not GigaPath's tile encoder" in refusal(tmp_path / "w.bin")


def test_a_file_that_is_no_checkpoint_is_refused(weights_file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "cut.bin").write_bytes(weights_file.read_bytes()[:5000])
    for name in ("text.bin", "empty.safetensors", "cut.bin"):
        assert "cannot be read as weights" in refusal(tmp_path / name)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "it ran",)

    torch.save({"cls_token": Payload()}, tmp_path / "zip.bin")
    (tmp_path / "bare.bin").write_bytes(pickle.dumps({"cls_token": Payload()}, protocol=2))
    for name in ("zip.bin", "bare.bin"):
        refusal(tmp_path / name)
    assert not (tmp_path / "it ran").exists()


# ---- the real one


def test_the_architecture_is_gigapaths() -> None:
    """Prov-GigaPath's tile encoder, as published: 1.135 B parameters in 566 tensors, 1536 numbers a tile."""
    with torch.device("meta"):
        real = timm.create_model(pretrained=False, **ARCHITECTURE)
        out = real(torch.empty(2, 3, 224, 224))
    assert len(real.state_dict()) == 566
    assert sum(p.numel() for p in real.parameters()) == 1_134_953_984
    assert tuple(out.shape) == (2, DIM) == (2, 1536)
