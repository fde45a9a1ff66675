"""Pen on the glass: which pixels are ink and not stain.

Told apart by how ink absorbs in red, green and blue. Haematoxylin and eosin absorb green most and blue least of all (Ruifrok
and Johnston, 2001: haematoxylin 0.65, 0.70, 0.29; eosin 0.07, 0.99, 0.11); the inks of markers do not. Works on optical
density relative to the glass, so that coloured glass changes nothing.
"""

import numpy as np
import numpy.typing as npt
import scipy

# Share of the density that a stroke must have somewhere, and that its faint rim may fall to.
_CORE, _RIM = 0.30, 0.10
_MIN_AREA_UM2 = 10_000.0
_HALO_UM = 24.0


def pen_mask(density: npt.NDArray[np.float32], mpp: float) -> npt.NDArray[np.bool_]:
    """Ink of any of five colours: (H, W) bool, True on ink and on the 24 µm around it where it thins out.

    `density` is (H, W, 3) optical density (log10) in red, green and blue at `mpp` µm per pixel. Marks below 10,000 µm² are
    not ink: pigments of the tissue are small.
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
    """Where the largest of the three densities is at least `least` and their ratios are a marker's: blue, green, red,
    yellow and orange, black.
    """
    r, g, b = (density[..., c] for c in range(3))
    high, low = density.max(2), density.min(2)
    seen = high >= least
    return [
        # Of haematoxylin on real sections, red is up to 1.22 times green, and blue never below 0.43 of red.
        seen & (((r >= 1.35 * g) & (b <= 0.7 * high)) | ((r >= 0.9 * g) & (b <= 0.36 * r))),
        seen & (r >= 1.2 * g) & (b >= 1.1 * g),
        # Blood is a duller red: a marker's lets red pass whole, and is dense.
        (high >= 1.7 * least) & (g >= 0.7 * b) & (b >= 0.8 * g) & (r <= 0.15 * high),
        seen & (b >= 1.6 * g) & (r <= 0.3 * b),
        # Two faint stains add up to grey as well, and no dense pair of them to black.
        (high >= max(least, 0.7)) & (low >= 0.8 * high),
    ]


def _strokes(core: npt.NDArray[np.bool_], rim: npt.NDArray[np.bool_], min_area: int) -> npt.NDArray[np.bool_]:
    """The connected parts of `rim` that hold some of `core` and have at least `min_area` pixels of it."""
    labels, n = scipy.ndimage.label(rim | core, np.ones((3, 3)))
    area = np.bincount(labels[core], minlength=n + 1)
    keep = area >= min_area
    keep[0] = False
    return keep[labels]
