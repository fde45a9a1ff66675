"""The demo descriptor: the same for the same tile, whatever is beside it, and different where tiles look different."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from stpath_assets.features.encoders.demo import DIM, DemoEncoder, describe
from tests.conftest import tissue_image

DIGEST = "c9ca5e9d7e25dc7a9c525f26c36527e96cc3e67db8f099fd63c08bdfc6890ea2"


@pytest.fixture(scope="module")
def tiles() -> npt.NDArray[np.uint8]:
    return np.stack([tissue_image(64, 64, seed, box=(0, 0, 64, 64)) for seed in range(7)])


def test_shape_and_type(tiles: npt.NDArray[np.uint8]) -> None:
    features = DemoEncoder().encode(tiles)
    assert features.shape == (7, DIM) == (7, 1536)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert DemoEncoder().encode(tiles[:0]).shape == (0, DIM)


def test_a_tiles_features_depend_on_that_tile_alone(tiles: npt.NDArray[np.uint8]) -> None:
    together = DemoEncoder().encode(tiles)
    order = [3, 1, 6, 0]
    np.testing.assert_array_equal(DemoEncoder().encode(tiles[order]), together[order])
    np.testing.assert_array_equal(describe(tiles[5]), together[5])


def test_the_descriptor_is_always_the_same() -> None:
    """The demo weights were learnt on these very numbers: whoever changes them must raise VERSION and learn anew."""
    i, j, c = np.ogrid[0:64, 0:64, 0:3]
    fine, coarse = (i * i * 31 + i * j * 17 + j * j * 13) % 9, (i // 8 * 37 + j // 8 * 53) % 5 * 20
    tile = (100 + 9 * c + fine + coarse).astype(np.uint8)
    first = describe(tile)
    np.testing.assert_array_equal(first, describe(tile.copy()))
    rounded = np.round(first.astype(np.float64), 5) + 0.0
    assert hashlib.sha256(rounded.astype("<f4").tobytes()).hexdigest() == DIGEST


def test_each_part_is_a_distribution(tiles: npt.NDArray[np.uint8]) -> None:
    squares = DemoEncoder().encode(tiles).astype(float) ** 2
    for part in (squares[:, :512], *np.split(squares[:, 512:], 4, axis=1)):
        np.testing.assert_allclose(part.sum(1), 1, atol=1e-5)


def test_colour_and_texture_are_told_apart() -> None:
    flat, red = np.full((64, 64, 3), 200, np.uint8), np.full((64, 64, 3), (200, 20, 20), np.uint8)
    checks = flat.copy()
    checks[::2, ::2] = 230
    colour, texture = slice(0, 512), slice(512, None)
    assert (describe(flat)[colour] != describe(red)[colour]).any()
    np.testing.assert_array_equal(describe(flat)[texture], describe(red)[texture])
    assert np.abs(describe(flat)[texture] - describe(checks)[texture]).max() > 0.3


def test_faint_noise_is_no_texture() -> None:
    """Noise of a JPEG on empty glass stays below the least contrast."""
    noise = np.random.default_rng(0).integers(240, 243, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(describe(noise)[512:], describe(np.full((64, 64, 3), 241, np.uint8))[512:])
