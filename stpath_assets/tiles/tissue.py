"""Where a scan holds tissue: a classical, deterministic mask at 8 µm per pixel.

Tissue absorbs more than the glass beside it and is textured; stain smeared over glass, shadows and dirt out
of focus absorb too, but are smooth. The mask is True on tissue. Which pyramid level is read depends on the
scan alone.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from stpath_assets.slides import Slide

CODE_VERSION = "1"


@dataclass(frozen=True)
class TissueParameters:
    """What the mask depends on beside the scan.

    `mpp`: scale of the mask, µm per pixel. `min_density`, `max_density`: bounds of the threshold on optical
    density, which Otsu's method chooses between them. `min_texture`: least local standard deviation of grey
    values (0–255) around tissue. `max_hole_um2`, `min_object_um2`: holes up to, and objects below this size
    are filled and dropped.
    """

    mpp: float = 8.0
    min_density: float = 0.06
    max_density: float = 0.15
    min_texture: float = 5.0
    max_hole_um2: float = 10_000.0
    min_object_um2: float = 20_000.0

    def facts(self) -> dict[str, float]:
        """The parameters under the names that a fingerprint uses."""
        return {f"tissue_{k}": v for k, v in asdict(self).items()}


DEFAULT = TissueParameters()


def tissue_mask(slide: Slide, parameters: TissueParameters = DEFAULT) -> npt.NDArray[np.bool_]:
    """The mask of a scan: (H, W) bool, True on tissue, at `parameters.mpp` µm per pixel."""
    return mask_of_image(slide.read_scaled(parameters.mpp), parameters)


def mask_of_image(image: npt.NDArray[np.uint8], parameters: TissueParameters = DEFAULT) -> npt.NDArray[np.bool_]:
    """The mask of an image (H, W, 3) uint8 that has the mask's scale: (H, W) bool, True on tissue."""
    grey = image.mean(axis=2, dtype=np.float32)
    density = ndimage.gaussian_filter(optical_density(image, glass_colour(image)).max(axis=2), 1.0)
    texture = ndimage.gaussian_filter(_local_deviation(grey, 5), 1.5)
    # Dense stain saturates; without the cap, a few black specks would pull Otsu's threshold above pale
    # tissue.
    capped = np.minimum(density, 0.8)
    threshold = threshold_otsu(capped) if capped.min() < capped.max() else parameters.max_density
    threshold = float(np.clip(threshold, parameters.min_density, parameters.max_density))
    mask = (density > threshold) & (texture > parameters.min_texture)
    area = parameters.mpp**2
    mask = remove_small_holes(mask, max_size=int(parameters.max_hole_um2 / area))
    return remove_small_objects(mask, max_size=int(parameters.min_object_um2 / area))


def glass_colour(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The colour of empty glass: each channel's most frequent value among pixels of the brighter half, (3,) float32.

    A scan with nothing bright on it (grey mean below 150 everywhere) is held against white.
    """
    grey = image.mean(axis=2, dtype=np.float32)
    bright = image[grey >= max(float(np.median(grey)), 150.0)]
    if len(bright) == 0:
        return np.full(3, 255, np.float32)
    return np.array([np.bincount(bright[:, c], minlength=256).argmax() for c in range(3)], np.float32)


def optical_density(image: npt.NDArray[np.uint8], glass: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """-log10 of transmitted light relative to glass (Beer–Lambert), (H, W, 3) float32, 0 where brighter than
    glass.
    """
    return -np.log10((np.minimum(image, glass) + 1) / (glass + 1), dtype=np.float32)


def _local_deviation(grey: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    mean = ndimage.uniform_filter(grey.astype(np.float64), size)
    return np.sqrt(np.maximum(ndimage.uniform_filter(grey.astype(np.float64) ** 2, size) - mean**2, 0)).astype(
        np.float32
    )
