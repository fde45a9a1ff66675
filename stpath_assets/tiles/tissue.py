"""Where a scan holds tissue: a classical, deterministic mask at 8 µm per pixel.

Tissue absorbs more than the glass beside it and is textured; stain smeared over glass, shadows and dirt out
of focus absorb too, but are smooth. The mask is True on tissue; what was not scanned and what pen covers is
never tissue. How the tiles fare over it belongs in `quality`.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import scipy
from skimage import filters

from stpath_assets.tiles.pen import pen_mask

CODE_VERSION = "3"

Mask = npt.NDArray[np.bool_]

_NO_DATA_UM2 = 40_000.0
"""Black or white areas from this size on that are exactly flat are no glass and no tissue but what was not scanned."""

_GLASS_NOISE = 4.0
"""Local standard deviation of grey values below which glass lies; tissue exceeds it, compressed glass seldom has 2."""

_BLANK_DENSITY = 0.03


@dataclass(frozen=True)
class TissueParameters:
    """What the mask depends on beside the scan.

    `mpp`: scale of the mask, µm per pixel. `min_density`, `max_density`: bounds of the threshold on optical density (log10,
    the largest of the three channels), which Otsu's method chooses between them. `min_texture`: least local standard
    deviation of grey values (0–255) around tissue at the upper threshold, proportionally less at a lower one.
    `opaque_density`: what is coloured and absorbs more is tissue without texture too, such as what is out of focus.
    `max_cell_um2`: cells of fat up to this size are filled. `max_gap_um`: gaps up to this width are closed, such as those
    between the membranes of fat. `min_width_um`: what is thinner is a fibre or an edge. `max_hole_um2`, `min_object_um2`:
    holes up to, and objects below this size are filled and dropped.
    """

    mpp: float = 8.0
    min_density: float = 0.03
    max_density: float = 0.15
    min_texture: float = 5.0
    opaque_density: float = 0.3
    max_cell_um2: float = 40_000.0
    max_gap_um: float = 48.0
    min_width_um: float = 40.0
    max_hole_um2: float = 16_000.0
    min_object_um2: float = 20_000.0

    def facts(self) -> dict[str, float]:
        """The parameters under the names that a fingerprint uses."""
        return {f"tissue_{name}": getattr(self, name) for name in _NAMES}


_NAMES = tuple(f.name for f in fields(TissueParameters))
DEFAULT = TissueParameters()


@dataclass(frozen=True)
class Layers:
    """What covers the glass: `tissue`, `pen` and `blank` are (H, W) bool, `glass` (3,) float32 is the glass's colour.

    `blank` is what lets light pass as glass does, and what was not scanned; it may lie inside tissue.
    """

    tissue: Mask
    pen: Mask
    blank: Mask
    glass: npt.NDArray[np.float32]


def mask_of_image(image: npt.NDArray[np.uint8], parameters: TissueParameters = DEFAULT) -> Mask:
    """The mask of an image (H, W, 3) uint8 that has the mask's scale: (H, W) bool, True on tissue."""
    return layers_of_image(image, parameters).tissue


def layers_of_image(image: npt.NDArray[np.uint8], parameters: TissueParameters = DEFAULT) -> Layers:
    """Tissue, pen and blank of an image (H, W, 3) uint8 that has the mask's scale."""
    # Channel by channel in memory: over a last axis of three, every maximum would take ten times as long.
    image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 2, 0)), 0, 2)
    deviation = _local_deviation(image.mean(axis=2, dtype=np.float32), 5)
    missing = _not_scanned(image, parameters.mpp)
    glass = glass_colour(image, deviation, missing)
    density = optical_density(image, glass)
    density[missing] = 0
    pen = pen_mask(density, parameters.mpp)
    blank = (density.max(axis=2) < _BLANK_DENSITY) | missing
    excluded = pen | (scipy.ndimage.binary_dilation(missing, iterations=2) if missing.any() else missing)
    # Where ink or nothing is, glass: else their edges would be texture, and their darkness would draw the threshold.
    grey, dense = image.mean(axis=2, dtype=np.float32), density.max(axis=2)
    coloured = density.min(axis=2) < 0.7 * dense
    grey[excluded], dense[excluded] = glass.mean(), 0
    tissue = _tissue(grey, dense, coloured, parameters) & ~excluded
    return Layers(_tidied(tissue, parameters) & ~excluded, pen, blank, glass)


def _tissue(
    grey: npt.NDArray[np.float32], density: npt.NDArray[np.float32], coloured: Mask, p: TissueParameters
) -> Mask:
    """Pixels that are dense and textured, or opaque, or fat: pale but much textured, and what lies between its membranes."""
    sharp, density = density, scipy.ndimage.gaussian_filter(density, 1.0)
    deviation = _local_deviation(grey, 5)
    texture = scipy.ndimage.gaussian_filter(deviation, 1.5)
    # Dense stain saturates; without the cap, a few black specks would pull Otsu's threshold above pale
    # tissue.
    capped = np.minimum(density, 0.8)
    threshold = filters.threshold_otsu(capped) if capped.min() < capped.max() else p.max_density
    threshold = float(np.clip(threshold, p.min_density, p.max_density))
    glass = deviation[density < threshold]
    noise = min(2.5 * float(np.median(glass)), p.min_texture) if glass.size else 0.0
    least = max(p.min_texture * threshold / p.max_density, noise, p.min_texture * 0.4)
    sure = ((density > threshold) & (texture > least)) | ((density > p.opaque_density) & coloured)
    # Membranes of fat are thinner than the pixels here, and so pale. The rim of dense tissue is as pale and as textured, as
    # far as the windows above reach, and so is dirt, but that is grey.
    solid = scipy.ndimage.binary_opening(sure, iterations=max(1, round(p.min_width_um / 2 / p.mpp)))
    rim = scipy.ndimage.binary_dilation(solid, iterations=5) if solid.any() else solid
    thin = (sharp > 1.5 * p.min_density) & (deviation > p.min_texture)
    membranes = (thin | ((density > p.min_density) & (texture > p.min_texture))) & coloured & ~rim
    return sure | membranes | _between(sure | membranes, solid, p)


def _between(membranes: Mask, solid: Mask, p: TissueParameters) -> Mask:
    """Cells of fat: what membranes enclose, up to `max_cell_um2`. What dense tissue encloses is a lumen, and stays out."""
    if not membranes.any():
        return membranes
    # A membrane that is cut along its plane is paler, and seems interrupted.
    walls = scipy.ndimage.binary_closing(np.pad(membranes, 2), iterations=2)[2:-2, 2:-2]
    cells, n = scipy.ndimage.label(~walls)
    small = np.bincount(cells.ravel(), minlength=n + 1) <= p.max_cell_um2 / p.mpp**2
    beside = np.where(walls, scipy.ndimage.grey_dilation(cells, size=3), 0)
    around, thick = (np.bincount(beside[where], minlength=n + 1) for where in (walls, solid))
    keep = small & (thick <= 0.3 * around)
    keep[0] = False
    return keep[cells]


def _tidied(mask: Mask, p: TissueParameters) -> Mask:
    """Gaps closed, holes filled, fibres and specks dropped."""
    # Takes long to import, and most commands look at no tissue.
    from skimage.morphology import remove_small_holes, remove_small_objects

    if not mask.any():
        return mask
    half_gap, half_width = round(p.max_gap_um / 2 / p.mpp), round(p.min_width_um / 2 / p.mpp)
    if half_gap:
        # Beyond the image's edge lies no glass: there, closing must not erode.
        mask = scipy.ndimage.binary_closing(np.pad(mask, half_gap), iterations=half_gap)[
            half_gap:-half_gap, half_gap:-half_gap
        ]
    area = p.mpp**2
    mask = remove_small_holes(mask, max_size=int(p.max_hole_um2 / area))
    if half_width:
        grown = np.pad(mask, half_width, mode="edge")
        mask = scipy.ndimage.binary_opening(grown, iterations=half_width)[
            half_width:-half_width, half_width:-half_width
        ]
    return remove_small_objects(mask, max_size=int(p.min_object_um2 / area))


def glass_colour(
    image: npt.NDArray[np.uint8], deviation: npt.NDArray[np.float32] | None = None, missing: Mask | None = None
) -> npt.NDArray[np.float32]:
    """The colour of empty glass: each channel's most frequent value among the bright smooth pixels, (3,) float32.

    `deviation` (H, W) is the local standard deviation of grey values, `missing` (H, W) what was not scanned. A scan
    that shows no glass (smooth within 60 grey values of its brightest: below 0.2 % of it) is held against its brightest
    hundredth, and one with nothing bright on it (grey below 100) against white.
    """
    grey = image.mean(axis=2, dtype=np.float32)
    deviation = _local_deviation(grey, 5) if deviation is None else deviation
    valid = np.ones(grey.shape, bool) if missing is None else ~missing
    if not valid.any() or (brightest := float(np.percentile(grey[valid], 99))) < 100:
        return np.full(3, 255, np.float32)
    bright = valid & (deviation < _GLASS_NOISE) & (grey >= max(brightest - 60, 100.0))
    if bright.sum() < 0.002 * grey.size:
        return np.percentile(image[valid], 99, axis=0).astype(np.float32)
    return np.array([np.bincount(image[bright][:, c], minlength=256).argmax() for c in range(3)], np.float32)


def optical_density(image: npt.NDArray[np.uint8], glass: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """-log10 of transmitted light relative to glass (Beer–Lambert), (H, W, 3) float32, 0 where brighter than
    glass.
    """
    # 256 values a channel: a table is much faster than as many logarithms as pixels.
    values = np.arange(256, dtype=np.float32)[:, None]
    table = -np.log10((np.minimum(values, glass) + 1) / (glass + 1), dtype=np.float32)
    return np.moveaxis(np.stack([table[:, c][image[..., c]] for c in range(3)]), 0, 2)


def _not_scanned(image: npt.NDArray[np.uint8], mpp: float) -> Mask:
    """Black borders, and the exactly white padding of scanners that scan only where they see tissue.

    White is padding only where glass of another colour is beside it.
    """
    least = max(1, int(_NO_DATA_UM2 / mpp**2))
    black, white = _large(image.max(axis=2) <= 20, least), _large(image.min(axis=2) == 255, least)
    if white.any():
        grey = image.mean(axis=2, dtype=np.float32)
        other = (grey < 254) & (grey >= 150) & (_local_deviation(grey, 5) < _GLASS_NOISE) & ~white
        if other.sum() < 0.02 * other.size:
            return black
    return black | white


def _large(mask: Mask, least: int) -> Mask:
    from skimage.morphology import remove_small_objects

    return remove_small_objects(mask, max_size=least) if mask.any() else mask


def _local_deviation(grey: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    # About 128, squares keep enough digits in float32.
    centred = grey - 128
    mean = scipy.ndimage.uniform_filter(centred, size)
    return np.sqrt(np.maximum(scipy.ndimage.uniform_filter(centred**2, size) - mean**2, 0))
