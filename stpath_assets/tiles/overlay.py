"""Draws a slide's tiles: the outline of the tissue mask, and each tile in the colour of its fate (kept, or why dropped).

Imported late: Pillow's drawing and SciPy are not needed for tiling.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

_OUTLINE = (20, 20, 20)
TILE_COLOURS = {
    "kept": (20, 120, 60),
    "pen": (230, 120, 0),
    "blank": (40, 130, 220),
    "grey": (110, 110, 110),
    "blurred": (200, 30, 30),
    "unreadable": (200, 0, 200),
}
"""Colours of kept tiles, and of dropped tiles by reason."""


def draw_tiles(
    image: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    mask: npt.NDArray[np.bool_],
    corners: Mapping[str, npt.NDArray[np.float64]],
    sides_px: tuple[float, float],
    longest_px: int = 1400,
) -> npt.NDArray[np.uint8]:
    """Draw a slide with the outline of its tissue mask, its tiles, and a legend below: (H, W, 3) uint8.

    `image` (h, w, 3) and `mask` (h, w), True on tissue, cover the whole slide of `size_px` (width, height). `corners` maps
    `kept`, or the reason why tiles were dropped, to their top-left corners (N, 2). Corners and `sides_px` are level-0 pixels.
    Dropped tiles are filled.
    """
    scale = min(longest_px / max(image.shape[:2]), 6.0)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR).convert("RGBA")
    layer = Image.new("RGBA", size)
    draw, to_picture = ImageDraw.Draw(layer), np.array(size) / size_px
    width, height = sides_px * to_picture
    for name, xy in corners.items():
        colour = TILE_COLOURS[name]
        fill = None if name == "kept" else (*colour, 110)
        for x, y in (xy * to_picture).tolist():
            box = (x, y, x + width, y + height)
            draw.rectangle(box, outline=(*colour, 200), fill=fill)
    drawn = np.asarray(Image.alpha_composite(picture, layer).convert("RGB")).copy()
    outlined = np.asarray(Image.fromarray(mask).resize(size))
    drawn[outlined & ~binary_erosion(outlined, iterations=2, border_value=1)] = _OUTLINE
    counts = {name: len(xy) for name, xy in corners.items()}
    return np.vstack([drawn, _legend(size[0], counts)])


def draw_boxes(
    image: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    corners: npt.NDArray[np.float64],
    sides_px: tuple[float, float],
    colour: tuple[int, int, int],
) -> npt.NDArray[np.uint8]:
    """Draw the outlines of tiles on a picture (h, w, 3) of the whole slide; arguments as those of `draw_tiles`."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    draw, to_picture = ImageDraw.Draw(picture), np.array(picture.size) / size_px
    width, height = sides_px * to_picture
    for x, y in (corners * to_picture).tolist():
        draw.rectangle((x, y, x + width, y + height), outline=colour)
    return np.asarray(picture)


def _legend(width: int, counts: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """Draw the legend of `draw_tiles`, in as many lines as `width` needs."""
    font = ImageFont.load_default(14)
    entries = [("tissue", _OUTLINE), *((f"{n} {name}", TILE_COLOURS[name]) for name, n in counts.items())]
    places, x, line = [], 8.0, 0
    for text, _ in entries:
        needed = font.getlength(text) + 42
        if x > 8 and x + needed > width:
            x, line = 8.0, line + 1
        places.append((x, 6 + 22 * line))
        x += needed
    strip = Image.new("RGB", (width, 22 * (line + 1) + 8), "white")
    draw = ImageDraw.Draw(strip)
    for (text, colour), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top + 3, left + 12, top + 15), fill=colour)
        draw.text((left + 18, top), text, fill="black", font=font)
    return np.asarray(strip)
