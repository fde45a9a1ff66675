"""How good the tiles are: what is measured of each, and which are dropped for it.

Every measure of a tile is a mean over its square of a map at the scale of the tissue mask, so that any grid can be
measured at once. Nothing is read again for it: the maps come from the image that the mask came from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy
from PIL import Image

from stpath_assets.tiles.grid import Grid, box_means, boxes_on
from stpath_assets.tiles.tissue import Layers

CODE_VERSION = "2"

FOCUS_MPP = 4.0
"""Scale at which focus is measured, µm per pixel: nuclei are two pixels wide, and a scan need not be read in full."""

_FINE_UM, _COARSE_UM = 4.0, 12.0

_NOISE = 3.0
"""Mean square of grey values that is no structure: glass has less, tissue of three real sections 40 and more."""

UNREADABLE = "unreadable"
"""A tile whose pixels cannot be decoded, where such tiles are dropped and not an error."""

_MEASURED = ("pen", "blank", "grey", "blurred")

REASONS = (UNREADABLE, *_MEASURED)
"""Why a tile is dropped, the first that holds."""

Maps = dict[str, npt.NDArray]


@dataclass(frozen=True)
class QualityParameters:
    """What a tile must be to be kept; `drop` False measures all the same and drops none.

    `max_pen`, `max_blank`: largest shares of its area. `min_saturation`: least mean colour of its tissue; dust, shadows
    and bubbles are grey. `min_focus`: least focus; 0.15 lies between tissue in focus (0.23 and more on three real sections)
    and the same tissue blurred by a Gaussian of 6 µm (0.1; docs/tissue.md).
    """

    drop: bool = True
    max_pen: float = 0.2
    max_blank: float = 0.95
    min_saturation: float = 0.035
    min_focus: float = 0.15

    def facts(self) -> dict[str, float | bool]:
        """The parameters under the names that a fingerprint uses: none of those that have no effect."""
        return {f"quality_{name}": value for name, value in vars(self).items() if self.drop or name == "drop"}


def quality_maps(image: npt.NDArray[np.uint8], small: npt.NDArray[np.uint8], layers: Layers) -> Maps:
    """The maps that `measure` averages, each (H, W) at the mask's scale.

    `image` is the scan at `FOCUS_MPP`, `small` (H, W, 3) the same at the mask's scale. Focus compares, within tissue, what
    is finer than a Gaussian of 4 µm with what lies between 4 and 12 µm, two pixels and more inside tissue. To the latter a
    little is added: it regularizes the ratio, so that structureless areas, such as ink, score as blurred.
    """
    fine, coarse = _bands(image, layers.tissue.shape)
    light = np.minimum(small, layers.glass) / layers.glass
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    darkest = np.minimum(np.minimum(light[..., 0], light[..., 1]), light[..., 2])
    colour = np.where(brightest > 0, 1 - darkest / np.maximum(brightest, 1 / 255), 0)
    tissue = layers.tissue
    # Without its outline: where tissue ends is detail too, and coarser than any in it.
    within = scipy.ndimage.binary_erosion(tissue, iterations=2, border_value=1)
    return {
        "tissue": tissue, "pen": layers.pen, "blank": layers.blank,
        "colour": colour * tissue, "fine": fine * within, "coarse": (coarse + _NOISE) * within,
    }  # fmt: skip


def measure(maps: Mapping[str, npt.NDArray], grid: Grid, width_px: int, height_px: int) -> dict[str, npt.NDArray]:
    """The quality columns of the tiles of a grid over a scan of that size, each (N,) float64.

    `tissue_fraction`, `pen_fraction`, `blank_fraction`: shares of the tile's area. `saturation`: mean of 1 - min / max of
    the light that the three channels let pass, relative to glass, over the tile's tissue; 0 is grey. `focus`: see
    `quality_maps`, a ratio of mean squares. The last two are NaN where a tile has no tissue.
    """
    height, width = maps["tissue"].shape
    boxes = boxes_on((height, width), grid, width_px, height_px)
    means = {name: box_means(values, *boxes) for name, values in maps.items()}
    return {
        "tissue_fraction": means["tissue"],
        "pen_fraction": means["pen"],
        "blank_fraction": means["blank"],
        "saturation": _ratio(means["colour"], means["tissue"]),
        "focus": _ratio(means["fine"], means["coarse"]),
    }


def reasons(columns: Mapping[str, npt.NDArray], parameters: QualityParameters) -> npt.NDArray[np.str_]:
    """Why each tile would be dropped by what was measured of it: (N,) of `REASONS`, empty for those that are good."""
    bad = [
        columns["pen_fraction"] > parameters.max_pen,
        columns["blank_fraction"] > parameters.max_blank,
        columns["saturation"] < parameters.min_saturation,
        columns["focus"] < parameters.min_focus,
    ]
    return np.select(bad, list(_MEASURED), "")


def share_lost(candidates: int, dropped: Mapping[str, int]) -> float:
    """Share of the tiles with tissue that the filter dropped, 0 to 1."""
    return sum(dropped.values()) / candidates if candidates else 0.0


def sentence(dropped: Mapping[str, int]) -> str:
    """`12 blurred, 3 pen`: the most frequent first."""
    return ", ".join(f"{n} {r}" for r, n in sorted(dropped.items(), key=lambda item: -item[1]))


def _bands(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> tuple[npt.NDArray, npt.NDArray]:
    """Mean squares of the fine and the coarse part of grey, (H, W) float32 at the mask's scale."""
    grey = image[..., 0].astype(np.float32)
    grey += image[..., 1]
    grey += image[..., 2]
    grey /= 3
    # In place, since this is the largest image that is held: a Gaussian of a Gaussian adds their variances.
    smooth = scipy.ndimage.gaussian_filter(grey, _FINE_UM / FOCUS_MPP)
    grey -= smooth
    fine = reduced(np.square(grey, out=grey), shape)
    smoother = scipy.ndimage.gaussian_filter(smooth, math.sqrt(_COARSE_UM**2 - _FINE_UM**2) / FOCUS_MPP, output=grey)
    smooth -= smoother
    return fine, reduced(np.square(smooth, out=smooth), shape)


def reduced(image: npt.NDArray, shape: tuple[int, int]) -> npt.NDArray:
    """An image averaged by area to (H, W), pixels and channels of its own type."""
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BOX))


def _ratio(a: npt.NDArray, b: npt.NDArray) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 1e-9)
