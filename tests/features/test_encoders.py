"""Precision, batches and memory of encoders, models of timm's, and what identifies each."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stpath_assets.errors import FeatureError, SettingsError, WeightsError
from stpath_assets.features import EncoderChoice, embed
from stpath_assets.features.encoders import gigapath as module
from stpath_assets.features.encoders import vit
from stpath_assets.features.encoders.gigapath import ARCHITECTURE, load
from stpath_assets.prediction import ModelChoice, predict_expression
from stpath_assets.settings import load_settings
from stpath_assets.slides import open_slide
from stpath_assets.storage.fingerprint import start
from stpath_assets.tiles import tile
from tests.features.test_gigapath import SMALL, small_model

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "pytorch_model.bin"
    torch.save(small_model().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(1)
    torch.save(timm.create_model(TINY, num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def batch() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


# ---- precision


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_less_precision_stays_near_the_reference(
    weights_file: Path, batch: npt.NDArray[np.uint8], precision: Any, error: float
) -> None:
    exact = load(weights_file, **SMALL).encode(batch)
    reduced = load(weights_file, "cpu", precision, **SMALL).encode(batch)
    assert reduced.dtype == np.float32
    difference = np.abs(reduced - exact).max() / np.abs(exact).max()
    assert 1e-6 < difference < error, "computed otherwise, and near"


def test_weights_of_products_are_kept_in_the_precision_they_are_computed_in(weights_file: Path) -> None:
    model = load(weights_file, "cpu", "bfloat16", **SMALL).model
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert kinds["blocks.0.attn.qkv.weight"] == kinds["patch_embed.proj.weight"] == torch.bfloat16
    assert kinds["blocks.0.norm1.weight"] == kinds["blocks.0.ls1.gamma"] == kinds["pos_embed"] == torch.float32


def test_precision_is_a_fact_and_auto_is_what_it_comes_to(weights_file: Path) -> None:
    tiles = start(slide_sha256="x")

    def facts(precision: Any) -> Any:
        return EncoderChoice("gigapath", weights_file, "cpu", precision).extend(tiles)

    assert facts("auto") == facts("float32")
    assert facts("auto").facts["encoder_precision"] == "float32"
    assert facts("bfloat16").digest != facts("float32").digest
    assert EncoderChoice("demo").facts()["encoder_precision"] == "float32"


def test_the_demo_descriptor_has_no_other_precision() -> None:
    with pytest.raises(SettingsError, match="the demo descriptor has no bfloat16; set encoder_precision to auto"):
        EncoderChoice("demo", precision="bfloat16")


def test_the_precision_is_a_setting(monkeypatch: pytest.MonkeyPatch, weights_file: Path) -> None:
    monkeypatch.setenv("STPATH_ENCODER_PRECISION", "bfloat16")
    monkeypatch.setenv("STPATH_GIGAPATH_WEIGHTS", str(weights_file))
    assert EncoderChoice.of("gigapath", load_settings()).precision == "bfloat16"
    assert EncoderChoice.of("demo", load_settings()).precision == "auto"
    monkeypatch.setenv("STPATH_ENCODER_PRECISION", "half")
    with pytest.raises(SettingsError, match="encoder_precision"):
        load_settings()


# ---- memory


class Full(torch.nn.Module):
    """A device that holds two tiles at once and no more; remembers what it was given."""

    def __init__(self, most: int, error: RuntimeError) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.given: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.given.append(len(x))
        if len(x) > self.most:
            raise self.error
        return x.mean(dim=(2, 3))


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_batch_that_memory_does_not_hold_is_halved_and_so_are_later_ones(
    batch: npt.NDArray[np.uint8], error: RuntimeError
) -> None:
    model = Full(2, error)
    encoder = vit.TorchEncoder("gigapath", model, module.normalize, "cpu", "float32")
    whole = vit.TorchEncoder("gigapath", Full(99, error), module.normalize, "cpu", "float32").encode(batch)
    np.testing.assert_array_equal(encoder.encode(batch), whole)
    assert model.given == [5, 2, 2, 1]
    model.given.clear()
    np.testing.assert_array_equal(encoder.encode(batch), whole)
    assert model.given == [2, 2, 1], "what was too much once is not tried again"


def test_a_batch_that_memory_does_not_hold_while_it_is_prepared_is_halved_too(batch: npt.NDArray[np.uint8]) -> None:
    def prepare(some: npt.NDArray[np.uint8], device: str) -> torch.Tensor:
        if len(some) > 2:
            raise ERRORS[0]
        return module.normalize(some, device)

    whole = vit.TorchEncoder("gigapath", Full(99, ERRORS[0]), module.normalize, "cpu", "float32").encode(batch)
    encoder = vit.TorchEncoder("gigapath", Full(99, ERRORS[0]), prepare, "cpu", "float32")
    np.testing.assert_array_equal(encoder.encode(batch), whole)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.004)])
def test_a_gpu_gives_what_the_processor_does(
    weights_file: Path, batch: npt.NDArray[np.uint8], precision: Any, error: float
) -> None:
    exact = load(weights_file, **SMALL).encode(batch)
    found = load(weights_file, "cuda", precision, **SMALL).encode(batch)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() / np.abs(exact).max() < error


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_takes_the_largest_batch_that_fits_and_float16_of_itself(weights_file: Path) -> None:
    choice = EncoderChoice("gigapath", weights_file, "auto")
    assert choice.facts()["encoder_precision"] == "float16"
    encoder = load(weights_file, "cuda", "float16", **SMALL)
    assert encoder.batch_size == vit.MOST_TILES
    encoder.encode(np.zeros((encoder.batch_size, 224, 224, 3), np.uint8))
    assert 0 < (encoder.gpu_memory_bytes or 0) < 0.8 * torch.cuda.get_device_properties(0).total_memory


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_whose_memory_is_full_gets_smaller_batches(weights_file: Path) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (256, 224, 224, 3), np.uint8)
    encoder = load(weights_file, "cuda", "float32", **SMALL)
    exact = encoder.encode(batch)
    whole = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + whole / 3) / total)
    try:
        np.testing.assert_allclose(encoder.encode(batch), exact, atol=1e-5)
        assert encoder._most in (32, 64, 128)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_no_room_for_one_tile_is_said(batch: npt.NDArray[np.uint8]) -> None:
    encoder = vit.TorchEncoder("gigapath", Full(0, ERRORS[0]), module.normalize, "cpu", "float32")
    with pytest.raises(
        FeatureError, match=r"^gigapath: cpu has too little memory for one tile; free some, or set STPATH_DEVICE"
    ):
        encoder.encode(batch)


def test_other_errors_are_not_taken_for_want_of_memory(batch: npt.NDArray[np.uint8]) -> None:
    model = Full(2, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        vit.TorchEncoder("gigapath", model, module.normalize, "cpu", "float32").encode(batch)
    assert model.given == [5]


@given(
    total=st.integers(1, 200).map(lambda g: g * 2**30),
    fixed=st.integers(0, 8 * 2**30),
    tile_bytes=st.integers(2**20, 2**31),
)
def test_the_largest_batch_that_fits_is_chosen(total: int, fixed: int, tile_bytes: int) -> None:
    n = vit.fitting(total, fixed, fixed + 4 * tile_bytes, fixed + 8 * tile_bytes)
    assert n in {2**i for i in range(9)}
    assert n == 1 or fixed + n * tile_bytes <= 0.8 * total * 1.0001
    assert n == 256 or fixed + 2 * n * tile_bytes > 0.8 * total * 0.9999


# ---- timm's


def test_a_model_of_timms_comes_with_its_own_transform(tiny_weights: Path, batch: npt.NDArray[np.uint8]) -> None:
    choice = EncoderChoice(f"timm:{TINY}", tiny_weights, "cpu")
    model = timm.create_model(TINY, num_classes=0)
    model.load_state_dict(torch.load(tiny_weights, weights_only=True))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        expected = model.eval()(torch.stack([transform(Image.fromarray(t)) for t in batch])).numpy()
    np.testing.assert_allclose(choice.load().encode(batch), expected, atol=1e-5)
    assert expected.shape == (5, 192)


def test_the_weights_of_timms_models_are_told_apart_by_their_tensors(tiny_weights: Path, tmp_path: Path) -> None:
    state = torch.load(tiny_weights, weights_only=True)
    torch.save(state, tmp_path / "same.pth")
    torch.save({**state, "cls_token": state["cls_token"] + 1}, tmp_path / "other.pth")
    sums = [
        EncoderChoice(f"timm:{TINY}", path, "cpu").weights_sha256()
        for path in (tiny_weights, tmp_path / "same.pth", tmp_path / "other.pth")
    ]
    assert sums[0] == sums[1] != sums[2]


def test_what_is_no_model_of_timms_is_refused(tiny_weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"^timm:no_such_model: cannot be made .*; check the name") as error:
        EncoderChoice("timm:no_such_model", tiny_weights, "cpu").load()
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=r"^tiny\.pth: is not vit_small_patch16_224: \d+ of \d+ tensors missing"):
        EncoderChoice("timm:vit_small_patch16_224", tiny_weights, "cpu").load()


def test_stpath_refuses_features_of_other_encoders(tiny_weights: Path, drawn_slide: Path) -> None:
    with open_slide(drawn_slide) as slide:
        features = embed(tile(slide, min_tissue=0.9), EncoderChoice(f"timm:{TINY}", tiny_weights, "cpu"))
    assert features.matrix.shape == (len(features), 192)
    assert features.encoder == features.facts["encoder"] == f"timm:{TINY}"
    model = ModelChoice.for_encoder("demo", load_settings())
    with pytest.raises(FeatureError, match=r"^drawn: features are the timm:.* encoder's, but stpath-demo takes demo's"):
        predict_expression(features, "Breast", "Visium", ["EPCAM"], model=model)
    with pytest.raises(FeatureError, match="have width 192, not 1536"):
        features.to_table()


# ---- the settings of one call


def test_the_precision_of_one_call_goes_over_the_settings(
    weights_file: Path, drawn_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ARCHITECTURE", {**ARCHITECTURE, **SMALL})
    monkeypatch.setenv("STPATH_GIGAPATH_WEIGHTS", str(weights_file))
    with open_slide(drawn_slide) as slide:
        tiles = tile(slide, min_tissue=0.9)
        exact = embed(tiles, "gigapath", device="cpu")
        reduced = embed(tiles, "gigapath", device="cpu", precision="bfloat16")
    assert (exact.facts["encoder_precision"], reduced.facts["encoder_precision"]) == ("float32", "bfloat16")
    assert not np.array_equal(exact.matrix, reduced.matrix)
