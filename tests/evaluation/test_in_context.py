"""Which spots are known in context, and what is smoothed from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.errors import SettingsError
from stpath_assets.evaluation.in_context import BLOCK, ContextChoice, Smoother, nearest_spots
from stpath_assets.features import Features
from stpath_assets.spots import Spots


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ("0.2", ContextChoice(0.2)),
        ("0.05 blocks", ContextChoice(0.05, "blocks")),
        ("0.2 random 7", ContextChoice(0.2, "random", 7)),
    ],
)
def test_the_setting_is_a_share_a_layout_and_a_seed(text: str, expected: ContextChoice | None) -> None:
    assert ContextChoice.of(text) == expected


@pytest.mark.parametrize(
    "text", ["0", "1", "1.2", "-0.1", "nan", "x", "0.2 rows", "0.2 random x", "0.2 random 1 2", "0.2 random -1"]
)
def test_anything_else_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match=r"give a share between 0 and 1, then random or blocks, then a seed"):
        ContextChoice.of(text)


SQUARE = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2) * 224.0


@given(st.floats(0.02, 0.9), st.sampled_from(["random", "blocks"]), st.integers(0, 99))
def test_about_the_share_is_drawn_the_same_for_the_same_seed(fraction: float, layout: str, seed: int) -> None:
    choice = ContextChoice(fraction, layout, seed)
    drawn = choice.draw(SQUARE)
    assert (drawn == choice.draw(SQUARE)).all()
    assert (np.diff(drawn) > 0).all()
    whole = (BLOCK**2 if layout == "blocks" else 1) / 2
    assert abs(len(drawn) - fraction * len(SQUARE)) <= whole + 1e-9 or len(drawn) in (1, BLOCK**2)


def test_blocks_are_whole() -> None:
    drawn = ContextChoice(0.25, "blocks", 3).draw(SQUARE)
    blocks = {tuple(b) for b in (SQUARE[drawn] // (BLOCK * 224)).astype(int).tolist()}
    assert len(drawn) == len(blocks) * BLOCK**2


def test_the_smoother_is_a_mean_with_gaussian_weights() -> None:
    rng = np.random.default_rng(0)
    xy, values, at = rng.uniform(0, 1000, (25, 2)), rng.standard_normal((25, 3)), rng.uniform(0, 1000, (9, 2))
    smoother = Smoother(xy, 150.0)
    weights = np.exp(-(np.linalg.norm(at[:, None] - xy[None], axis=2) ** 2) / (2 * 150.0**2))
    expected = (weights @ values) / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(smoother.at(at, values), expected, atol=1e-9)
    far = smoother.at(np.array([[1e7, 0.0]]), values)
    assert np.isfinite(far).all()


def test_the_width_follows_how_far_values_are_alike() -> None:
    rng = np.random.default_rng(1)
    smooth = np.sin(SQUARE[:, :1] / 1500) + 0.3 * rng.standard_normal((len(SQUARE), 5))
    assert Smoother.fit(SQUARE, smooth).width >= 1.5 * 224
    patchy = np.sin(SQUARE[:, :1] / 224 * np.pi / 2 + np.pi / 4) * np.sin(SQUARE[:, 1:] / 224 * np.pi / 2 + np.pi / 4)
    assert Smoother.fit(SQUARE, patchy).width <= Smoother.fit(SQUARE, smooth).width


def test_each_tile_has_its_nearest_spot() -> None:
    centers = np.array([[112.0, 112.0], [336.0, 112.0], [9000.0, 112.0]])
    features = Features("s", ["a", "b", "c"], np.zeros((3, 4), np.float32), centers, 0.5, 0.5, "demo")
    xy = np.array([[150.0, 112.0], [120.0, 112.0], [330.0, 110.0], [5000.0, 0.0]])
    spots = Spots(["1", "2", "3", "4"], xy, ["A"], None, "h5ad")
    spot, tile = nearest_spots(spots, features)
    assert (spot.tolist(), tile.tolist()) == ([1, 2], [0, 1])
