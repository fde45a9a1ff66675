"""Tissue detection: a classical, deterministic mask at 8 µm per pixel, True on tissue.

Tissue absorbs more light than glass and has texture. Smeared stain, shadows and out-of-focus dirt absorb light too, but are
smooth. Unscanned areas and pen marks are never tissue. Measuring the tiles on this mask belongs in `quality`.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import scipy
from skimage import filters

from stpath_assets.tiles.pen import pen_mask

CODE_VERSION = "3"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TissueParameters:
    """The parameters of the mask.

    `mpp`: scale of the mask, µm per pixel. `min_unscanned_um2`: black or exactly white areas of at least this size were not
    scanned. `max_glass_noise`: local standard deviation of grey values (0–255) below which a bright pixel counts as glass;
    compressed glass rarely exceeds 2. `max_blank_density`: optical density below which a pixel is as clear as glass.
    `min_density`, `max_density`: bounds of the threshold on optical density (log10, the largest of the three channels),
    which Otsu's method chooses. `min_texture`: minimum local standard deviation of grey values at the upper threshold,
    proportionally less at a lower one. `opaque_density`: coloured pixels denser than this are tissue even without texture,
    for example out of focus. `max_grey_ratio`: a pixel is coloured if its smallest density is below this share of its
    largest. `max_cell_um2`: fat cells up to this size are filled. `max_gap_um`: gaps up to this width are closed.
    `min_width_um`: anything thinner is removed as a fibre or an edge. `max_hole_um2`: holes up to this size are filled.
    `min_object_um2`: smaller objects are removed.
    """

    mpp: float = 8.0
    min_unscanned_um2: float = 40_000.0
    max_glass_noise: float = 4.0
    max_blank_density: float = 0.03
    min_density: float = 0.03
    max_density: float = 0.15
    min_texture: float = 5.0
    opaque_density: float = 0.3
    max_grey_ratio: float = 0.7
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
    """Masks of a scan: `tissue`, `pen` and `blank` are (H, W) bool, `glass` (3,) float32 is the colour of the glass.

    `blank` is True where the scan is as clear as glass or was not scanned. It may lie inside tissue.
    """

    tissue: Mask
    pen: Mask
    blank: Mask
    glass: npt.NDArray[np.float32]


def mask_of_image(image: npt.NDArray[np.uint8], parameters: TissueParameters = DEFAULT) -> Mask:
    """Return the mask of an image (H, W, 3) uint8 at the mask's scale: (H, W) bool, True on tissue."""
    return layers_of_image(image, parameters).tissue


def layers_of_image(image: npt.NDArray[np.uint8], parameters: TissueParameters = DEFAULT) -> Layers:
    """Return the tissue, pen and blank masks of an image (H, W, 3) uint8 at the mask's scale."""
    # One channel after the other in memory: a maximum over a last axis of three takes ten times as long.
    image = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 2, 0)), 0, 2)
    deviation = _local_deviation(image.mean(axis=2, dtype=np.float32), 5)
    missing = _unscanned(image, parameters)
    glass = glass_colour(image, deviation, missing, parameters.max_glass_noise)
    density = optical_density(image, glass)
    density[missing] = 0
    pen = pen_mask(density, parameters.mpp)
    blank = (density.max(axis=2) < parameters.max_blank_density) | missing
    excluded = pen | (scipy.ndimage.binary_dilation(missing, iterations=2) if missing.any() else missing)
    # Paint ink and unscanned areas as glass: their edges would count as texture, and their darkness would move the threshold.
    grey, dense = image.mean(axis=2, dtype=np.float32), density.max(axis=2)
    coloured = density.min(axis=2) < parameters.max_grey_ratio * dense
    grey[excluded], dense[excluded] = glass.mean(), 0
    tissue = _tissue(grey, dense, coloured, parameters) & ~excluded
    return Layers(_tidied(tissue, parameters) & ~excluded, pen, blank, glass)


def _tissue(
    grey: npt.NDArray[np.float32], density: npt.NDArray[np.float32], coloured: Mask, p: TissueParameters
) -> Mask:
    """Return the pixels that are dense and textured, or coloured and opaque, or fat (pale, strongly textured, and enclosed)."""
    sharp, density = density, scipy.ndimage.gaussian_filter(density, 1.0)
    deviation = _local_deviation(grey, 5)
    texture = scipy.ndimage.gaussian_filter(deviation, 1.5)
    # Dense stain saturates. Without the cap, a few black specks would pull Otsu's threshold above pale tissue.
    capped = np.minimum(density, 0.8)
    threshold = filters.threshold_otsu(capped) if capped.min() < capped.max() else p.max_density
    threshold = float(np.clip(threshold, p.min_density, p.max_density))
    glass = deviation[density < threshold]
    noise = min(2.5 * float(np.median(glass)), p.min_texture) if glass.size else 0.0
    least = max(p.min_texture * threshold / p.max_density, noise, p.min_texture * 0.4)
    sure = ((density > threshold) & (texture > least)) | ((density > p.opaque_density) & coloured)
    # Fat membranes are thinner than a pixel here, so they look pale. The rim of dense tissue is as pale and as textured within
    # the reach of the windows above, so it is excluded. Dirt is too, but it is grey.
    solid = scipy.ndimage.binary_opening(sure, iterations=max(1, round(p.min_width_um / 2 / p.mpp)))
    rim = scipy.ndimage.binary_dilation(solid, iterations=5) if solid.any() else solid
    thin = (sharp > 1.5 * p.min_density) & (deviation > p.min_texture)
    membranes = (thin | ((density > p.min_density) & (texture > p.min_texture))) & coloured & ~rim
    return sure | membranes | _between(sure | membranes, solid, p)


def _between(membranes: Mask, solid: Mask, p: TissueParameters) -> Mask:
    """Return the fat cells: areas up to `max_cell_um2` enclosed by membranes. Areas enclosed by dense tissue are lumina."""
    if not membranes.any():
        return membranes
    # A membrane cut along its plane is paler and appears interrupted.
    walls = scipy.ndimage.binary_closing(np.pad(membranes, 2), iterations=2)[2:-2, 2:-2]
    cells, n = scipy.ndimage.label(~walls)
    small = np.bincount(cells.ravel(), minlength=n + 1) <= p.max_cell_um2 / p.mpp**2
    beside = np.where(walls, scipy.ndimage.grey_dilation(cells, size=3), 0)
    around, thick = (np.bincount(beside[where], minlength=n + 1) for where in (walls, solid))
    keep = small & (thick <= 0.3 * around)
    keep[0] = False
    return keep[cells]


def _tidied(mask: Mask, p: TissueParameters) -> Mask:
    """Close gaps, fill holes, and remove fibres and specks."""
    # Slow to import, and most commands detect no tissue.
    from skimage.morphology import remove_small_holes, remove_small_objects

    if not mask.any():
        return mask
    half_gap, half_width = round(p.max_gap_um / 2 / p.mpp), round(p.min_width_um / 2 / p.mpp)
    if half_gap:
        # There is no glass beyond the image's edge, so closing must not erode there.
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
    image: npt.NDArray[np.uint8],
    deviation: npt.NDArray[np.float32] | None = None,
    missing: Mask | None = None,
    max_noise: float = DEFAULT.max_glass_noise,
) -> npt.NDArray[np.float32]:
    """Return the colour of empty glass, (3,) float32: each channel's most frequent value among the bright smooth pixels.

    `deviation` (H, W) is the local standard deviation of grey values, below `max_noise` on glass. `missing` (H, W) is True
    on unscanned areas. Glass is within 60 grey values of the brightest pixels. If less than 0.2 % of the scan is glass, the
    result is the 99th percentile of each channel; if nothing reaches a grey value of 100, it is white.
    """
    grey = image.mean(axis=2, dtype=np.float32)
    deviation = _local_deviation(grey, 5) if deviation is None else deviation
    valid = np.ones(grey.shape, bool) if missing is None else ~missing
    if not valid.any() or (brightest := float(np.percentile(grey[valid], 99))) < 100:
        return np.full(3, 255, np.float32)
    bright = valid & (deviation < max_noise) & (grey >= max(brightest - 60, 100.0))
    if bright.sum() < 0.002 * grey.size:
        return np.percentile(image[valid], 99, axis=0).astype(np.float32)
    return np.array([np.bincount(image[bright][:, c], minlength=256).argmax() for c in range(3)], np.float32)


def optical_density(image: npt.NDArray[np.uint8], glass: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return -log10 of the transmitted light relative to glass (Beer–Lambert), (H, W, 3) float32, 0 where brighter than glass."""
    # A table of 256 values a channel is much faster than a logarithm a pixel.
    values = np.arange(256, dtype=np.float32)[:, None]
    table = -np.log10((np.minimum(values, glass) + 1) / (glass + 1), dtype=np.float32)
    return np.moveaxis(np.stack([table[:, c][image[..., c]] for c in range(3)]), 0, 2)


def _unscanned(image: npt.NDArray[np.uint8], p: TissueParameters) -> Mask:
    """Return the black borders, and the exactly white padding of scanners that scan only where they see tissue.

    White is padding only if the scan also shows glass of another colour.
    """
    least = max(1, int(p.min_unscanned_um2 / p.mpp**2))
    black, white = _large(image.max(axis=2) <= 20, least), _large(image.min(axis=2) == 255, least)
    if white.any():
        grey = image.mean(axis=2, dtype=np.float32)
        other = (grey < 254) & (grey >= 150) & (_local_deviation(grey, 5) < p.max_glass_noise) & ~white
        if other.sum() < 0.02 * other.size:
            return black
    return black | white


def _large(mask: Mask, least: int) -> Mask:
    from skimage.morphology import remove_small_objects

    return remove_small_objects(mask, max_size=least) if mask.any() else mask


def _local_deviation(grey: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    # Centred on 128, squares keep enough digits in float32.
    centred = grey - 128
    mean = scipy.ndimage.uniform_filter(centred, size)
    return np.sqrt(np.maximum(scipy.ndimage.uniform_filter(centred**2, size) - mean**2, 0))
