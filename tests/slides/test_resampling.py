"""Resampling: every output pixel is where it should be and what it should be, at any scale and position."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.slides.resampling import Weights, area_weights, cubic_weights, resample, shrink

Image = npt.NDArray[np.uint8]
OFFSETS = st.floats(0, 1, exclude_max=True)
SLOPE, N = 12.0, 21
BOXES = {"x": st.floats(2, 6), "y": st.floats(2, 6), "side": st.floats(8, 12.9), "out_px": st.integers(2, 40)}

# ---- what it should be, written down differently


def axis_means(image: npt.NDArray, start: float, length: float, n: int) -> npt.NDArray:
    """Rows averaged over n equal parts of [start, start + length): differences of the running sum, as real numbers."""
    total = np.concatenate([np.zeros((1, *image.shape[1:])), image.astype(float).cumsum(0)])
    edges = start + np.arange(n + 1) * length / n
    below = np.minimum(edges.astype(int), len(image) - 1)
    part = (edges - below).reshape(-1, *[1] * (image.ndim - 1))
    at_edges = total[below] * (1 - part) + total[below + 1] * part
    return np.diff(at_edges, axis=0) / (length / n)


def axis_cubic(image: npt.NDArray, start: float, length: float, n: int) -> npt.NDArray:
    """Rows at the centres of n equal parts by cubic convolution with a = -0.5 (Keys, 1981), the kernel cut at the edge."""
    centres = start + (np.arange(n) + 0.5) * length / n
    t = np.abs(centres[:, None] - (np.arange(len(image)) + 0.5))
    weights = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    return np.tensordot(weights / weights.sum(1, keepdims=True), image.astype(float), 1)


def resampled(image: Image, x: float, y: float, side: float, n: int, side_y: float | None = None) -> npt.NDArray:
    """What `resample` should give of a box, square unless `side_y` says otherwise, as real numbers."""

    def one_axis(lines: npt.NDArray, start: float, length: float) -> npt.NDArray:
        return (axis_means if length >= n else axis_cubic)(lines, start, length, n)

    rows = one_axis(image, y, side if side_y is None else side_y)
    return one_axis(rows.transpose(1, 0, 2), x, side).transpose(1, 0, 2).clip(0, 255)


def ramp(axis: int) -> Image:
    """An image whose value is SLOPE times the pixel's index along an axis."""
    line = (SLOPE * np.arange(N)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(line[None, :, None] if axis else line[:, None, None], (N, N, 3)))


# ---- weights


def matrix(weights: Weights, n: int) -> npt.NDArray:
    """The matrix (out, n) of weights; what lies beyond the last pixel must weigh nothing."""
    out = np.zeros((len(weights.first), n + weights.taps.shape[1]))
    for o, first in enumerate(weights.first):
        out[o, first : first + weights.taps.shape[1]] = weights.taps[o]
    assert (out[:, n:] == 0).all()
    return out[:, :n]


@given(OFFSETS, st.floats(1, 60), st.integers(1, 30))
def test_weights_are_means_over_equal_parts(offset: float, length: float, out_px: int) -> None:
    n = math.ceil(offset + length)
    weights = matrix(area_weights(offset, length, out_px, n), n)
    assert weights.shape == (out_px, n)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


@given(OFFSETS, st.floats(1, 60), st.integers(1, 30), st.integers(0, 99))
def test_weights_keep_the_mean(offset: float, length: float, out_px: int, seed: int) -> None:
    n = math.ceil(offset + length)
    values = np.random.default_rng(seed).random(n)
    overlap = np.clip(np.minimum(offset + length, np.arange(n) + 1) - np.maximum(offset, np.arange(n)), 0, None)
    means = matrix(area_weights(offset, length, out_px, n), n) @ values
    assert means.mean() == pytest.approx((values * overlap).sum() / overlap.sum(), abs=1e-5)


@given(st.floats(0, 3), st.floats(1, 9), st.integers(1, 30), st.integers(1, 12))
def test_cubic_weights_sum_to_one_wherever_the_image_ends(start: float, length: float, out_px: int, n: int) -> None:
    if start + length > n:
        return
    weights = matrix(cubic_weights(start, length, out_px, n), n)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


# ---- one box


@given(st.integers(0, 16), st.integers(0, 16), st.integers(1, 24))
def test_at_the_same_scale_on_whole_pixels_nothing_changes(x: int, y: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    np.testing.assert_array_equal(resample(image, x, y, size, size, size), image[y : y + size, x : x + size])


@settings(deadline=None)
@given(axis=st.sampled_from([0, 1]), **BOXES)
def test_every_output_pixel_is_where_it_should_be(axis: int, x: float, y: float, side: float, out_px: int) -> None:
    """On a ramp, a pixel's value is its position: each output pixel has its centre's, to the rounding of grey values.

    Shrinking, a pixel counts as a square of one value, whose mean may lie an eighth of a pixel from the ramp's.
    """
    out = resample(ramp(axis), x, y, side, side, out_px)
    assert out.shape == (out_px, out_px, 3)
    centres = (x if axis else y) + (np.arange(out_px) + 0.5) * side / out_px
    found = out[:, :, 0] if axis else out[:, :, 0].T
    tolerance = 0.52 if side < out_px else 0.52 + SLOPE / 8
    assert np.abs(found - SLOPE * (centres - 0.5)).max() <= tolerance
    assert np.abs(found.mean() - SLOPE * (centres - 0.5).mean()) <= 0.52 + SLOPE / 8 / out_px


@settings(deadline=None)
@given(seed=st.integers(0, 9), **BOXES)
def test_every_box_against_real_numbers(seed: int, x: float, y: float, side: float, out_px: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (N, N, 3), np.uint8)
    out = resample(image, x, y, side, side, out_px)
    assert out.flags["C_CONTIGUOUS"]
    assert np.abs(out - resampled(image, x, y, side, out_px)).max() <= 0.51


@settings(deadline=None)
@given(x=st.floats(0, 12), y=st.floats(0, 12), out_px=st.integers(2, 24), cut=st.integers(0, 3))
def test_a_box_does_not_depend_on_what_lies_about_it(x: float, y: float, out_px: int, cut: int) -> None:
    """Three pixels beyond the box are more than any kernel reaches."""
    image = np.random.default_rng(1).integers(0, 256, (36, 36, 3), np.uint8)
    left, top = max(0, math.floor(x) - 3 - cut), max(0, math.floor(y) - 3 - cut)
    part = image[top : math.ceil(y + 10.3) + 3, left : math.ceil(x + 10.3) + 3]
    whole = resample(image, x, y, 10.3, 10.3, out_px).astype(int)
    difference = resample(part, x - left, y - top, 10.3, 10.3, out_px) - whole
    assert np.abs(difference).max() <= 1  # where a value is half a grey value, to the last bit
    assert (difference != 0).mean() < 0.01


@settings(deadline=None)
@given(value=st.integers(0, 255), x=st.floats(0, 5), side=st.floats(3, 15), out_px=st.integers(1, 40))
def test_a_flat_image_stays_flat(value: int, x: float, side: float, out_px: int) -> None:
    out = resample(np.full((20, 20, 3), value, np.uint8), x, x, side, side, out_px)
    assert np.unique(out).tolist() == [value]


@pytest.mark.parametrize(("width", "height"), [(16, 8), (7, 20), (64, 64), (1, 1)])
def test_shrinking_averages_by_area(width: int, height: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    columns = axis_means(image.transpose(1, 0, 2), 0, 64, width).transpose(1, 0, 2)
    expected = axis_means(columns, 0, 64, height)
    assert np.abs(shrink(image, 0, 0, 64, 64, width, height) - expected).max() <= 0.51


# ---- patterns finer than the output can hold


def checker(cell: int, size: int) -> Image:
    """Black and white squares of `cell` pixels."""
    i = np.arange(size) // cell
    return np.repeat((255 * ((i[:, None] + i) % 2)).astype(np.uint8)[..., None], 3, 2)


@settings(deadline=None, max_examples=60)
@given(scale=st.floats(1.5, 9), x=st.floats(2, 4), y=st.floats(2, 4))
def test_a_checker_too_fine_for_the_output_comes_out_grey(scale: float, x: float, y: float) -> None:
    """A mean over s pixels of black and white ones leaves (2 - s)/s of their contrast on an axis, beyond two 1/s at most."""
    out = resample(checker(1, 160), x, y, 16 * scale, 16 * scale, 16)
    left = max((2 - scale) / scale, 1 / scale if scale > 2 else 0.0)
    assert np.abs(out - 127.5).max() <= 127.5 * left**2 + 0.51
    assert abs(out.mean() - 127.5) < 4


@pytest.mark.parametrize("scale", [2, 4, 6])
def test_a_checker_whose_pairs_fit_comes_out_even(scale: int) -> None:
    out = resample(checker(1, 160), 2.3, 3.7, 16 * scale, 16 * scale, 16)
    assert np.abs(out - 127.5).max() <= 0.51


def test_a_checker_that_the_output_can_hold_is_kept() -> None:
    out = resample(checker(2, 64), 0, 0, 64, 64, 32)
    np.testing.assert_array_equal(out, checker(1, 32))
