"""What is measured of tiles, and which are dropped: on drawn scans at the mask's scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.tiles.grid import Grid, regular_grid
from stpath_assets.tiles.quality import (
    REASONS,
    QualityParameters,
    measure,
    quality_maps,
    reasons,
    reduce_to,
    sentence,
    share_lost,
)
from stpath_assets.tiles.tissue import Layers, layers_of_image
from tests.tiles import drawn
from tests.tiles.drawn import box, glass, stained

SIDE = 14.0  # 112 µm at 8 µm per pixel
SECTION = box(56, 84, 182, 238)


def columns_of(image: drawn.Image, fine: drawn.Image | None = None) -> tuple[Grid, dict[str, np.ndarray]]:
    """The measures of all tiles of a scan given at 8 µm per pixel, and at 4 where focus matters."""
    fine = np.kron(image, np.ones((2, 2, 1), np.uint8)) if fine is None else fine
    grid = regular_grid(image.shape[1], image.shape[0], SIDE)
    layers = layers_of_image(image)
    return grid, measure(quality_maps(fine, image, layers), grid, image.shape[1], image.shape[0])


def sharp(seed: int = 0, contrast: float = 1.0) -> drawn.Image:
    """Tissue all over at 4 µm per pixel with detail at every scale, as real tissue has."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    shape = tuple(2 * n for n in drawn.SHAPE)
    noise = sum(ndimage.gaussian_filter(rng.standard_normal(shape), s) * s**0.8 for s in (0.5, 1.5, 4.0))
    detail = noise / noise.std() * 22 * contrast
    return (np.array([185, 120, 165]) + detail[..., None]).clip(0, 255).astype(np.uint8)


def given_tissue(fine: drawn.Image, tissue: drawn.Mask, glass_: drawn.Colour = drawn.WHITE) -> dict[str, np.ndarray]:
    """The measures of the tiles that are all tissue, whatever the mask would say."""
    small, none = reduce_to(fine, drawn.SHAPE), np.zeros(drawn.SHAPE, bool)
    layers = Layers(tissue, none, none, np.array(glass_, np.float32))
    grid = regular_grid(small.shape[1], small.shape[0], SIDE)
    columns = measure(quality_maps(fine, small, layers), grid, small.shape[1], small.shape[0])
    inside = columns["tissue_fraction"] > 0.999
    assert inside.sum() > 20
    return {name: values[inside] for name, values in columns.items()}


def focus_of(fine: drawn.Image) -> np.ndarray:
    return given_tissue(fine, np.ones(drawn.SHAPE, bool))["focus"]


def test_shares_of_a_tile_are_its_areas() -> None:
    grid, columns = columns_of(stained(glass(), SECTION))
    inside = (grid.x_px >= 98) & (grid.x_px < 210) & (grid.y_px >= 70) & (grid.y_px < 154)
    outside = (grid.x_px + SIDE < 70) | (grid.y_px + SIDE < 42)
    assert columns["tissue_fraction"][inside].min() > 0.99
    assert columns["tissue_fraction"][outside].max() == 0
    assert columns["blank_fraction"][outside].min() > 0.99
    assert columns["blank_fraction"][inside].max() < 0.05
    assert columns["pen_fraction"].max() == 0


def test_without_tissue_there_is_no_focus_and_no_colour() -> None:
    _, columns = columns_of(glass())
    assert np.isnan(columns["focus"]).all()
    assert np.isnan(columns["saturation"]).all()
    assert set(reasons(columns, QualityParameters())) == {"blank"}


@pytest.mark.parametrize("colour", [drawn.WHITE, (225, 215, 190)])
def test_saturation_is_relative_to_glass_and_zero_for_grey(colour: drawn.Colour) -> None:
    """Light that passes grey tissue is weaker, and of the glass's colour."""

    def saturation(r: float, g: float, b: float) -> np.ndarray:
        passed = tuple(c * f for c, f in zip(colour, (r, g, b), strict=True))
        fine = np.broadcast_to(np.round(passed).astype(np.uint8), (2 * drawn.SHAPE[0], 2 * drawn.SHAPE[1], 3))
        return given_tissue(np.ascontiguousarray(fine), SECTION, colour)["saturation"]

    assert saturation(0.5, 0.5, 0.5).max() < 0.01
    np.testing.assert_allclose(saturation(0.9, 0.5, 0.8), 1 - 0.5 / 0.9, atol=0.01)


@pytest.mark.parametrize("seed", [0, 1])
def test_focus_falls_with_blur_and_not_with_contrast(seed: int) -> None:
    still = np.median(focus_of(sharp(seed)))
    medians = [np.median(focus_of(drawn.blurred(sharp(seed), um / 4))) for um in (2, 4, 6, 10)]
    assert still > medians[0] > medians[1] > medians[2] > medians[3]
    assert medians[2] < QualityParameters().min_focus < still / 2
    assert np.median(focus_of(sharp(seed, 0.4))) == pytest.approx(still, rel=0.25)
    assert focus_of(sharp(seed, 0.1)).min() > QualityParameters().min_focus, "pale tissue is not blurred"


@pytest.mark.parametrize("colour", [(95, 60, 150), (110, 90, 170), (175, 45, 60), (215, 110, 115)])
@pytest.mark.parametrize("streaks_um", [0, 16, 60])
@pytest.mark.parametrize("noise", [0.3, 0.6])
def test_ink_of_the_colour_of_a_stain_is_blurred(colour: drawn.Colour, streaks_um: int, noise: float) -> None:
    """Violet as haematoxylin, red as blood: no pen by their colour, but they have no structure, or none in focus."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    shape = tuple(2 * n for n in drawn.SHAPE)
    ink = np.ones(shape)
    if streaks_um:
        streaks = ndimage.gaussian_filter(rng.standard_normal(shape), streaks_um / 4)
        ink += 0.1 * streaks / streaks.std()
    light = (np.array(colour) / 242) ** ink[..., None]
    image = (242 * light + rng.normal(0, noise, (*shape, 1))).clip(0, 255).astype(np.uint8)
    columns = given_tissue(image, np.ones(drawn.SHAPE, bool))
    assert (columns["pen_fraction"] == 0).all()
    assert (reasons(columns, QualityParameters()) == "blurred").mean() > 0.98


def test_what_is_half_glass_is_not_blurred_for_it() -> None:
    fine = sharp()
    fine[:, : fine.shape[1] // 2] = 242
    small = reduce_to(fine, drawn.SHAPE)
    _, columns = columns_of(small, fine)
    half = (columns["tissue_fraction"] > 0.3) & (columns["tissue_fraction"] < 0.8)
    assert half.any()
    assert columns["focus"][half].min() > QualityParameters().min_focus


COLUMN = st.floats(0, 1)


@given(st.lists(st.tuples(COLUMN, COLUMN, COLUMN, COLUMN), min_size=1, max_size=20))
def test_a_tile_is_dropped_for_the_first_reason_that_holds(rows: list[tuple[float, ...]]) -> None:
    names = ("pen_fraction", "blank_fraction", "saturation", "focus")
    columns = {n: np.array(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}
    p = QualityParameters()
    for (pen, blank, saturation, focus), reason in zip(rows, reasons(columns, p), strict=True):
        holds = [pen > p.max_pen, blank > p.max_blank, saturation < p.min_saturation, focus < p.min_focus]
        assert reason == (REASONS[1:][holds.index(True)] if any(holds) else "")


@given(st.dictionaries(st.sampled_from(REASONS), st.integers(1, 50)), st.integers(0, 100))
def test_the_share_lost(dropped: dict[str, int], kept: int) -> None:
    n = sum(dropped.values()) + kept
    assert share_lost(n, dropped) == pytest.approx(sum(dropped.values()) / n if n else 0)
    assert all(f"{count} {reason}" in sentence(dropped) for reason, count in dropped.items())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_reducing_keeps_the_mean(height: int, width: int, factor: int) -> None:
    image = np.random.default_rng(height).random((height * factor, width * factor), np.float32)
    small = reduce_to(image, (height, width))
    expected = image.reshape(height, factor, width, factor).mean((1, 3))
    np.testing.assert_allclose(small, expected, atol=1e-5)


def test_parameters_without_effect_are_no_facts() -> None:
    assert QualityParameters(drop=False).facts() == QualityParameters(drop=False, min_focus=0.5).facts()
    assert QualityParameters().facts() != QualityParameters(min_focus=0.5).facts()
