"""The mask on every kind of slide that a lab has, drawn: overlap with what was drawn, and nothing where nothing is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.tiles.pen import pen_mask
from stpath_assets.tiles.tissue import layers_of_image, mask_of_image, optical_density
from tests.tiles import drawn
from tests.tiles.drawn import SHAPE, box, disc, glass, stained

SECTION = box(60, 80, 180, 240)
TINTED = [(242, 242, 242), (225, 215, 190), (200, 210, 230), (180, 180, 180), (235, 205, 215)]
PENS = {
    "blue": (30, 60, 170),
    "dark blue": (20, 30, 110),
    "green": (30, 140, 80),
    "red": (225, 40, 50),
    "black": (35, 35, 38),
    "yellow": (250, 225, 60),
    "orange": (250, 120, 20),
}


def overlap(mask: drawn.Mask, truth: drawn.Mask) -> float:
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


@pytest.mark.parametrize("colour", TINTED)
def test_pale_tissue_on_any_glass(colour: drawn.Colour) -> None:
    """A tenth of the light is absorbed in green, and half of that elsewhere."""
    faint = tuple(c * f for c, f in zip(colour, (0.95, 0.88, 0.94), strict=True))
    assert overlap(mask_of_image(stained(glass(colour), SECTION, faint, 9)), SECTION) > 0.85


def test_pale_tissue_beside_dark() -> None:
    dark, pale = box(60, 80, 180, 150), box(60, 150, 180, 240)
    image = stained(stained(glass(), pale, (226, 196, 216), 14), dark, (110, 50, 130), 40)
    assert overlap(mask_of_image(image), SECTION) > 0.85


@pytest.mark.parametrize("texture", [0, 4, 20])
def test_dark_tissue_is_found_with_or_without_texture(texture: int) -> None:
    assert overlap(mask_of_image(stained(glass(), SECTION, (70, 25, 90), texture)), SECTION) > 0.9


@pytest.mark.parametrize(
    ("cell_um", "membrane", "least"),
    [(35.0, (205, 140, 175), 0.75), (70.0, (205, 140, 175), 0.85), (90.0, (205, 140, 175), 0.8),
     (110.0, (205, 140, 175), 0.7), (130.0, (205, 140, 175), 0.6), (50.0, (222, 185, 205), 0.8)],
)  # fmt: skip
def test_fat_alone_and_beside_dense_tissue(cell_um: float, membrane: drawn.Colour, least: float) -> None:
    fat = drawn.fatty(SECTION, cell_um, membrane)
    assert overlap(mask_of_image(fat), SECTION) > least
    assert overlap(mask_of_image(stained(fat, box(60, 80, 180, 140))), SECTION) > least


@pytest.mark.parametrize("radius", [11, 13])
def test_a_lumen_in_dense_tissue_is_no_cell_of_fat(radius: int) -> None:
    """As large as the largest of those, with a wall around it."""
    hole = disc(120, 160, radius)
    mask = mask_of_image(stained(glass(), SECTION & ~hole))
    assert not mask[disc(120, 160, radius - 4)].any()
    ring = disc(120, 160, radius + 9) & ~hole
    assert not mask_of_image(stained(glass(), ring))[disc(120, 160, radius - 4)].any()


@pytest.mark.parametrize("pieces", [drawn.cores, drawn.biopsy])
def test_every_piece_of_a_fragmented_slide_is_found_and_none_melts_into_another(pieces: object) -> None:
    from scipy import ndimage

    truth = pieces()  # type: ignore[operator]
    mask = mask_of_image(stained(glass(), truth))
    assert overlap(mask, truth) > 0.8
    assert ndimage.label(mask)[1] == ndimage.label(truth)[1]


@pytest.mark.parametrize("colour", TINTED)
@pytest.mark.parametrize("border", [5, 40])
def test_black_borders_are_neither_tissue_nor_pen(colour: drawn.Colour, border: int) -> None:
    def framed(image: drawn.Image) -> drawn.Image:
        out = image.copy()
        out[:border] = out[:, -border:] = np.random.default_rng(0).integers(0, 6, (1, 1, 3))
        return out

    empty = layers_of_image(framed(glass(colour)))
    assert not empty.tissue.any()
    assert not empty.pen.any()
    assert empty.blank[:border].all()
    assert overlap(mask_of_image(framed(stained(glass(colour), SECTION))), SECTION) > 0.85


@pytest.mark.parametrize("colour", TINTED)
def test_white_padding_is_not_the_glass(colour: drawn.Colour) -> None:
    scanned = box(40, 50, 210, 290)
    image = np.where(scanned[..., None], stained(glass(colour), SECTION), 255).astype(np.uint8)
    layers = layers_of_image(image)
    assert overlap(layers.tissue, SECTION) > 0.85
    np.testing.assert_allclose(layers.glass, colour, atol=3)
    empty = np.where(scanned[..., None], glass(colour), 255).astype(np.uint8)
    assert not mask_of_image(empty).any()


def test_a_scan_full_of_tissue_has_no_glass_to_go_by() -> None:
    assert mask_of_image(stained(glass(), np.ones(SHAPE, bool))).mean() > 0.95


def test_dust_and_fibres_are_no_tissue() -> None:
    image = glass()
    rng = np.random.default_rng(0)
    for y, x in rng.integers(20, 220, (40, 2)):
        image[y : y + 4, x : x + 4] = rng.integers(30, 150)
    image[100:103, 20:300] = (120, 110, 130)  # 24 µm wide
    assert not mask_of_image(image).any()


# ---- pen


@pytest.mark.parametrize("name", PENS)
@pytest.mark.parametrize("glass_", TINTED[:3])
def test_pen_beside_tissue_is_pen_and_the_tissue_stays(name: str, glass_: drawn.Colour) -> None:
    ink = drawn.stroke(120, 160, 112)
    layers = layers_of_image(drawn.inked(stained(glass(glass_), SECTION), ink, PENS[name]))
    assert layers.pen[ink > 0.6].mean() > 0.9
    assert not layers.pen[SECTION].any()
    assert overlap(layers.tissue, SECTION) > 0.85


@pytest.mark.parametrize("name", PENS)
def test_pen_on_an_empty_slide_leaves_no_tissue(name: str) -> None:
    ink = drawn.stroke(120, 100, 60) + drawn.stroke(100, 250, 30)
    assert not mask_of_image(drawn.inked(glass(), ink.clip(0, 1), PENS[name])).any()


@pytest.mark.parametrize("name", ["blue", "green", "black"])
def test_pen_over_tissue_is_seen(name: str) -> None:
    ink = drawn.stroke(120, 160, 40, 16)
    layers = layers_of_image(drawn.inked(stained(glass(), SECTION), ink, PENS[name]))
    assert layers.pen[ink > 0.6].mean() > 0.8
    assert not (layers.pen & layers.tissue).any()
    assert layers.tissue[SECTION & ~disc(120, 160, 60)].mean() > 0.95


H, E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1.3), st.floats(0, 1.3), st.sampled_from(TINTED))
def test_no_mix_of_haematoxylin_and_eosin_is_pen(h: float, e: float, colour: drawn.Colour) -> None:
    flat = (np.array(colour) * 10 ** -(h * H + e * E)).round().astype(np.uint8)
    image = np.broadcast_to(flat, (40, 40, 3))
    assert not pen_mask(optical_density(image, np.array(colour, np.float32)), 8.0).any()


@pytest.mark.parametrize("colour", [(190, 70, 95), (150, 60, 75), (205, 95, 100), (110, 70, 45), (140, 95, 60)])
def test_blood_and_brown_pigment_are_no_pen(colour: drawn.Colour) -> None:
    layers = layers_of_image(stained(glass(), SECTION, colour, 25))
    assert layers.pen.mean() < 0.002
    assert overlap(layers.tissue, SECTION) > 0.85


def test_layers_are_the_same_every_time() -> None:
    image = drawn.inked(stained(glass(), SECTION), drawn.stroke(120, 160, 112), PENS["blue"])
    one, two = layers_of_image(image), layers_of_image(np.asfortranarray(image.copy()))
    for name in ("tissue", "pen", "blank", "glass"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
