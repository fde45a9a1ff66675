"""Pen detection: tells the ink of markers from stain by how it absorbs red, green and blue.

Haematoxylin and eosin absorb green most and blue least (Ruifrok and Johnston, 2001: haematoxylin 0.65, 0.70, 0.29; eosin 0.07,
0.99, 0.11). Inks do not. Works on optical density relative to the glass, so coloured glass makes no difference.
"""

import numpy as np
import numpy.typing as npt
import scipy

# Density that a stroke must reach somewhere, and down to which its faint rim is followed.
_CORE, _RIM = 0.30, 0.10
_MIN_AREA_UM2 = 10_000.0
_HALO_UM = 24.0


def pen_mask(density: npt.NDArray[np.float32], mpp: float) -> npt.NDArray[np.bool_]:
    """Return where ink of any of five colours is: (H, W) bool, True on ink and within 24 µm of it, where it thins out.

    `density` is (H, W, 3) optical density (log10) in red, green and blue at `mpp` µm per pixel. Marks below 10,000 µm² are
    ignored, because tissue pigments are that small.
    """
    smooth = np.moveaxis(np.stack([scipy.ndimage.gaussian_filter(density[..., c], 1.0) for c in range(3)]), 0, 2)
    ink = np.zeros(density.shape[:2], bool)
    for core, rim in zip(_inks(smooth, _CORE), _inks(smooth, _RIM), strict=True):
        if core.any():
            ink |= _strokes(core, rim, max(1, int(_MIN_AREA_UM2 / mpp**2)))
    if ink.any():
        ink = scipy.ndimage.binary_dilation(ink, iterations=max(1, round(_HALO_UM / mpp)))
    return ink


def _inks(density: npt.NDArray[np.float32], least: float) -> list[npt.NDArray[np.bool_]]:
    """Return a mask for each ink: blue, green, red, yellow or orange, black. The largest of the three densities is at least
    `least`, and their ratios are those of the ink.
    """
    r, g, b = (density[..., c] for c in range(3))
    high, low = density.max(2), density.min(2)
    seen = high >= least
    return [
        # For haematoxylin on real sections, red is up to 1.22 times green, and blue at least 0.43 of red.
        seen & (((r >= 1.35 * g) & (b <= 0.7 * high)) | ((r >= 0.9 * g) & (b <= 0.36 * r))),
        seen & (r >= 1.2 * g) & (b >= 1.1 * g),
        # Blood is a duller red. Red ink is dense and lets all red light pass.
        (high >= 1.7 * least) & (g >= 0.7 * b) & (b >= 0.8 * g) & (r <= 0.15 * high),
        seen & (b >= 1.6 * g) & (r <= 0.3 * b),
        # Two faint stains can add up to grey, but two dense ones never to black.
        (high >= max(least, 0.7)) & (low >= 0.8 * high),
    ]


def _strokes(core: npt.NDArray[np.bool_], rim: npt.NDArray[np.bool_], min_area: int) -> npt.NDArray[np.bool_]:
    """Return the connected parts of `rim` that contain at least `min_area` pixels of `core`."""
    labels, n = scipy.ndimage.label(rim | core, np.ones((3, 3)))
    area = np.bincount(labels[core], minlength=n + 1)
    keep = area >= min_area
    keep[0] = False
    return keep[labels]
