"""Tile quality: what is measured on each tile, and which tiles are dropped.

Each measure is the mean, over the tile's square, of a map at the scale of the tissue mask, so any grid can be measured at
once. The maps come from the same image as the mask; nothing is read again.
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
"""Scale at which focus is measured, µm per pixel. Nuclei are two pixels wide, and the scan need not be read in full."""

_FINE_UM, _COARSE_UM = 4.0, 12.0

_NOISE = 3.0
"""Mean square of grey values below which there is no structure: glass has less, tissue of three real sections at least 40."""

UNREADABLE = "unreadable"
"""Reason of tiles whose pixels cannot be decoded, if such tiles are dropped."""

_MEASURED = ("pen", "blank", "grey", "blurred")

REASONS = (UNREADABLE, *_MEASURED)
"""Reasons why a tile is dropped; the first that applies holds."""

Maps = dict[str, npt.NDArray]


@dataclass(frozen=True)
class QualityParameters:
    """The quality that a tile must have. With `drop` False, tiles are measured and none is dropped.

    `max_pen`, `max_blank`: maximum shares of the tile's area. `min_saturation`: minimum mean colour of its tissue; dust, shadows
    and bubbles are grey. `min_focus`: minimum focus; 0.15 is between tissue in focus (at least 0.23 on three real sections) and
    the same tissue blurred by a Gaussian of 6 µm (0.1; docs/tissue.md).
    """

    drop: bool = True
    max_pen: float = 0.2
    max_blank: float = 0.95
    min_saturation: float = 0.035
    min_focus: float = 0.15

    def facts(self) -> dict[str, float | bool]:
        """Return the parameters that have an effect, by their names in a fingerprint."""
        return {f"quality_{name}": value for name, value in vars(self).items() if self.drop or name == "drop"}


def quality_maps(image: npt.NDArray[np.uint8], small: npt.NDArray[np.uint8], layers: Layers) -> Maps:
    """Return the maps that `measure` averages, each (H, W) at the mask's scale.

    `image` is the scan at `FOCUS_MPP`, `small` (H, W, 3) the scan at the mask's scale. Focus compares detail finer than a
    Gaussian of 4 µm with detail between 4 and 12 µm, at least two pixels inside tissue. A constant is added to the latter: it
    regularizes the ratio, so that structureless areas, such as ink, score as blurred.
    """
    fine, coarse = _bands(image, layers.tissue.shape)
    light = np.minimum(small, layers.glass) / layers.glass
    brightest = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    darkest = np.minimum(np.minimum(light[..., 0], light[..., 1]), light[..., 2])
    colour = np.where(brightest > 0, 1 - darkest / np.maximum(brightest, 1 / 255), 0)
    tissue = layers.tissue
    # Without the outline: the edge of tissue is detail too, and coarser than any inside.
    within = scipy.ndimage.binary_erosion(tissue, iterations=2, border_value=1)
    return {
        "tissue": tissue, "pen": layers.pen, "blank": layers.blank,
        "colour": colour * tissue, "fine": fine * within, "coarse": (coarse + _NOISE) * within,
    }  # fmt: skip


def measure(maps: Mapping[str, npt.NDArray], grid: Grid, width_px: int, height_px: int) -> dict[str, npt.NDArray]:
    """Return the quality columns of the tiles of a grid on a scan of this size, each (N,) float64.

    `tissue_fraction`, `pen_fraction`, `blank_fraction`: shares of the tile's area. `saturation`: mean of 1 - min / max of
    the transmitted light of the three channels, relative to glass, over the tile's tissue; 0 is grey. `focus`: a ratio of
    mean squares, see `quality_maps`. The last two are NaN if a tile has no tissue.
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
    """Return why each tile would be dropped: (N,) of `REASONS`; empty if it is good."""
    bad = [
        columns["pen_fraction"] > parameters.max_pen,
        columns["blank_fraction"] > parameters.max_blank,
        columns["saturation"] < parameters.min_saturation,
        columns["focus"] < parameters.min_focus,
    ]
    return np.select(bad, list(_MEASURED), "")


def share_lost(candidates: int, dropped: Mapping[str, int]) -> float:
    """Return the share of the tiles with tissue that the filter dropped, 0 to 1."""
    return sum(dropped.values()) / candidates if candidates else 0.0


def sentence(dropped: Mapping[str, int]) -> str:
    """Format counts by reason, most frequent first: `12 blurred, 3 pen`."""
    return ", ".join(f"{n} {r}" for r, n in sorted(dropped.items(), key=lambda item: -item[1]))


def _bands(image: npt.NDArray[np.uint8], shape: tuple[int, int]) -> tuple[npt.NDArray, npt.NDArray]:
    """Return the mean squares of the fine and the coarse detail of grey values, (H, W) float32 at the mask's scale."""
    grey = image[..., 0].astype(np.float32)
    grey += image[..., 1]
    grey += image[..., 2]
    grey /= 3
    # In place, because this is the largest image in memory. The variances of successive Gaussians add up.
    smooth = scipy.ndimage.gaussian_filter(grey, _FINE_UM / FOCUS_MPP)
    grey -= smooth
    fine = reduce_to(np.square(grey, out=grey), shape)
    smoother = scipy.ndimage.gaussian_filter(smooth, math.sqrt(_COARSE_UM**2 - _FINE_UM**2) / FOCUS_MPP, output=grey)
    smooth -= smoother
    return fine, reduce_to(np.square(smooth, out=smooth), shape)


def reduce_to(image: npt.NDArray, shape: tuple[int, int]) -> npt.NDArray:
    """Return an image averaged by area to (H, W), with its own type and channels."""
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BOX))


def _ratio(a: npt.NDArray, b: npt.NDArray) -> npt.NDArray[np.float64]:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 1e-9)
