"""The tissue mask: True where tissue was drawn, and nowhere on glass, whatever its colour."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from stpath_assets.slides import open_slide
from stpath_assets.tiles.tissue import (
    TissueParameters,
    glass_colour,
    layers_of_image,
    mask_of_image,
    optical_density,
)
from tests.conftest import tissue_image, write_tiff


def glass(colour: tuple[int, int, int] = (242, 242, 242), noise: int = 2, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = np.broadcast_to(colour, (150, 200, 3)) + rng.integers(-noise, noise + 1, (150, 200, 1))
    return image.clip(0, 255).astype(np.uint8)


def overlap(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("levels", [1, 2])
def test_tissue_is_found_where_it_was_drawn(tmp_path: Path, mpp: float, levels: int) -> None:
    height, width = int(800 / mpp), int(1200 / mpp)
    box = (height // 4, width // 4, height * 3 // 4, width * 3 // 4)
    # Cells of 4 µm at every scale, so that the mask sees the same tissue.
    cells = tissue_image(200, 300, box=(50, 75, 150, 225))
    image = np.asarray(np.kron(cells, np.ones((round(4 / mpp), round(4 / mpp), 1))), np.uint8)
    with open_slide(write_tiff(tmp_path / "a.tif", image, mpp, levels)) as slide:
        mask = mask_of_image(slide.read_scaled(8.0))
    assert mask.shape == (100, 150)
    truth = np.zeros_like(mask)
    truth[tuple(slice(round(b * mpp / 8), round(e * mpp / 8)) for b, e in ((box[0], box[2]), (box[1], box[3])))] = True
    assert overlap(mask, truth) > 0.9


def textured(image: npt.NDArray[np.uint8], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Tissue in the middle half of an image that has the mask's scale."""
    out = image.copy()
    rng = np.random.default_rng(seed)
    out[40:110, 50:150] = np.array([190, 120, 170]) + rng.integers(-30, 30, (70, 100, 1))
    return out


TRUTH = np.zeros((150, 200), bool)
TRUTH[40:110, 50:150] = True

COLOURS = [(242, 242, 242), (255, 255, 255), (225, 215, 190), (200, 210, 230), (180, 180, 180)]


@pytest.mark.parametrize("colour", COLOURS)
def test_blank_glass_of_any_colour_has_no_tissue(colour: tuple[int, int, int]) -> None:
    assert not mask_of_image(glass(colour)).any()
    assert not mask_of_image(glass(colour, noise=0)).any()


@pytest.mark.parametrize("colour", COLOURS)
def test_grainy_glass_of_any_colour_has_no_tissue(colour: tuple[int, int, int]) -> None:
    assert not mask_of_image(glass(colour, noise=5)).any()


@pytest.mark.parametrize("colour", COLOURS)
def test_tissue_on_glass_of_any_colour_is_found(colour: tuple[int, int, int]) -> None:
    assert overlap(mask_of_image(textured(glass(colour))), TRUTH) > 0.85


def smeared(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A broad smooth pink smear over the left of the glass."""
    y, x = np.mgrid[0:150, 0:200]
    strength = np.exp(-(((x - 30) / 40) ** 2 + ((y - 75) / 60) ** 2))[..., None]
    return (image * (1 - strength * (0.05, 0.35, 0.2))).astype(np.uint8)


def test_a_smooth_smear_is_no_tissue() -> None:
    image = smeared(glass())
    assert optical_density(image, glass_colour(image)).max() > 0.15, "it is dense enough to be taken for tissue"
    assert not mask_of_image(image).any()


def test_tissue_beside_a_smear_is_found_alone() -> None:
    image = smeared(glass())
    image = np.where(TRUTH[..., None], textured(glass()), image)
    assert overlap(mask_of_image(image), TRUTH) > 0.85


def test_a_shadow_over_half_the_glass_is_no_tissue() -> None:
    shade = np.linspace(1, 0.6, 200)[None, :, None]
    assert not mask_of_image((glass() * shade).astype(np.uint8)).any()


def test_a_black_scan_has_no_tissue() -> None:
    assert not mask_of_image(np.zeros((150, 200, 3), np.uint8)).any()


def test_specks_are_dropped_and_small_holes_filled() -> None:
    image = textured(glass())
    image[70:76, 90:96] = 242  # 48 µm wide: a vessel
    rng = np.random.default_rng(1)
    image[5:13, 5:13] = rng.integers(40, 200, (8, 8, 1))  # 64 µm wide: dirt
    mask = mask_of_image(image)
    assert mask[70:76, 90:96].all()
    assert not mask[:25, :25].any()
    assert ndimage.label(mask)[1] == 1


def test_large_holes_stay() -> None:
    image = textured(glass())
    image[60:90, 80:120] = 242  # 240 by 320 µm
    assert not mask_of_image(image)[70:80, 90:110].any()


def test_the_mask_is_deterministic() -> None:
    image = textured(glass())
    np.testing.assert_array_equal(mask_of_image(image), mask_of_image(image.copy()))


def test_glass_is_its_most_frequent_bright_colour() -> None:
    assert glass_colour(textured(glass((225, 215, 190), noise=0))).tolist() == [225, 215, 190]
    assert glass_colour(np.zeros((9, 9, 3), np.uint8)).tolist() == [255, 255, 255]


def test_optical_density_is_zero_on_glass_and_one_at_a_tenth() -> None:
    white = np.full(3, 255, np.float32)
    assert optical_density(np.full((1, 1, 3), 255, np.uint8), white).max() == 0
    assert optical_density(np.full((1, 1, 3), 25, np.uint8), white)[0, 0, 0] == pytest.approx(1, abs=0.01)


def test_every_parameter_is_a_fact() -> None:
    assert set(TissueParameters().facts()) == {f"tissue_{f.name}" for f in fields(TissueParameters)}
    assert TissueParameters(min_texture=6.0).facts()["tissue_min_texture"] == 6.0


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        ({"max_blank_density": 0.5}, "blank"),
        ({"min_unscanned_um2": 1e9}, "blank"),
        ({"max_grey_ratio": 0.0}, "tissue"),
        ({"max_glass_noise": 0.0}, "glass"),
    ],
)
def test_each_limit_has_an_effect(change: dict[str, float], layer: str) -> None:
    image = textured(glass())
    image[:, :40] = 0  # not scanned
    image[5:30, 150:190] = (150, 40, 120)  # opaque and coloured, without texture
    image[115:, 60:120] = 250  # brighter than most glass
    usual, changed = layers_of_image(image), layers_of_image(image, replace(TissueParameters(), **change))
    assert not np.array_equal(getattr(usual, layer), getattr(changed, layer))
