"""Pictures of a slide's results: expression maps over the tissue, and measured against predicted scatters.

Draws what it is given and reads no table. Every picture made with the demo weights says so. Figures are built without
pyplot, so that steps in threads do not share state.
"""

import base64
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import binary_erosion

from stpath_assets.storage import atomic_file

MAX_GENES = 12
"""Panels up to this size get a figure for every gene; larger ones for those that the settings name."""

THUMBNAIL_BYTES = 48_000
_MADE_FROM = "stpath_fingerprint"
_DEMO = "demo weights, not biology"
_OUTLINE = (20, 20, 20)
TILE_COLOURS = {
    "kept": (20, 120, 60),
    "pen": (230, 120, 0),
    "blank": (40, 130, 220),
    "grey": (110, 110, 110),
    "blurred": (200, 30, 30),
    "unreadable": (200, 0, 200),
}
"""How tiles are drawn: the kept ones, and the dropped ones by reason."""


def chosen(genes: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The genes of a panel that get a figure: all of a small one, those `wanted` of a large one, or else its first."""
    if len(genes) <= MAX_GENES:
        return list(genes)
    return [g for g in wanted if g in set(genes)][:MAX_GENES] or list(genes)[:MAX_GENES]


def path_of(home: Path, slide_id: str, kind: str, gene: str) -> Path:
    """Where a figure belongs: figures/<slide_id>/<kind>_<gene>.png, the gene in characters every file system takes.

    A gene that has others keeps a few digits of its hash, so that two genes never share a figure.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", gene)
    if plain != gene:
        plain += "-" + hashlib.sha256(gene.encode()).hexdigest()[:8]
    return home / "figures" / slide_id / f"{kind}_{plain}.png"


def expression_map(
    thumbnail: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    centers_px: npt.NDArray[np.float64],
    sides_px: tuple[float, float],
    values: npt.NDArray[np.float32],
    *,
    title: str,
    mpp_xy: tuple[float, float],
    demo: bool,
) -> Figure:
    """Values of tiles in magma over the slide's thumbnail, beside the thumbnail alone.

    `size_px` is the slide's (width, height), `centers_px` (N, 2) and `sides_px` (along x and y) are level-0 pixels,
    `mpp_xy` µm per pixel along x and y, `values` (N,) log1p expression. Axes are in mm from the slide's top-left corner.
    """
    to_mm, sides = np.array(mpp_xy) / 1000, np.array(sides_px)
    extent = (0.0, size_px[0] * to_mm[0], size_px[1] * to_mm[1], 0.0)
    # The view is the tissue with a margin: on a wide glass, a small section would be a speck.
    low = np.maximum((centers_px.min(0) - 3 * sides) * to_mm, 0)
    high = np.minimum((centers_px.max(0) + 3 * sides) * to_mm, (extent[1], extent[2]))
    height_to_width = float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 1.8))
    figure = Figure(figsize=(9.4, 4.1 * height_to_width + 0.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes in (left, right):
        axes.imshow(thumbnail, extent=extent, interpolation="bilinear", alpha=1.0 if axes is left else 0.35)
        axes.set_xlabel("mm")
        axes.set_aspect("equal")
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * sides / 2
    squares = PolyCollection(
        (centers_px[:, None, :] + corners[None]) * to_mm, array=values, cmap="magma", edgecolors="face", linewidths=0.1
    )
    right.add_collection(squares)
    left.set_ylabel("mm")
    left.set_title("scan", fontsize=10)
    right.set_title("predicted log1p expression" + (f" ({_DEMO})" if demo else ""), fontsize=10)
    right.set_xlim(low[0], high[0])
    right.set_ylim(high[1], low[1])
    figure.colorbar(squares, ax=right, shrink=0.85)
    figure.suptitle(title)
    return figure


def scatter(
    measured_log1p: npt.NDArray, predicted_log1p: npt.NDArray, *, title: str, pearson_r: float | None, demo: bool
) -> Figure:
    """Predicted against measured log1p expression of the K paired spots, each (K,), with r in the title."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(measured_log1p, predicted_log1p, s=12, alpha=0.55, color="#5b2a86", linewidths=0)
    axes.set_xlabel("measured, log1p count")
    axes.set_ylabel("predicted, log1p expression")
    r = "r undefined" if pearson_r is None else f"r = {pearson_r:.3f}"
    axes.set_title(f"{title}: {r}, n = {len(measured_log1p)}" + (f"\n{_DEMO}" if demo else ""), fontsize=10)
    axes.grid(alpha=0.25)
    return figure


def save(figure: Figure, path: Path, made_from: str) -> Path:
    """Writes a figure as PNG, replacing a complete file by a complete file, with the digest of what it was made from."""
    with atomic_file(path) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={"Software": None, _MADE_FROM: made_from})
    return path


def save_image(image: npt.NDArray[np.uint8], path: Path, made_from: str) -> Path:
    """Writes an image (H, W, 3) as PNG, as `save` does a figure."""
    about = PngInfo()
    about.add_text(_MADE_FROM, made_from)
    with atomic_file(path) as draft:
        Image.fromarray(image).save(draft, "PNG", pnginfo=about)
    return path


def is_current(path: Path, made_from: str) -> bool:
    """Whether a figure is there, whole, and made from this."""
    try:
        with Image.open(path) as picture:
            picture.verify()
            return picture.info.get(_MADE_FROM) == made_from
    except (OSError, SyntaxError):  # absent, or damaged: Pillow raises SyntaxError for a broken PNG
        return False


def keep_only(home: Path, slide_id: str, kind: str, paths: Iterable[Path]) -> None:
    """Removes a slide's figures of a kind that are not among `paths`: what is there is of what is current."""
    folder, kept = home / "figures" / slide_id, {p.name for p in paths}
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(f"{kind}_") and entry.name.endswith(".png") and entry.name not in kept:
            Path(entry.path).unlink(missing_ok=True)


def small_jpeg_of(path: Path, longest_px: int = 420) -> str:
    """A figure on disk as `small_jpeg`."""
    with Image.open(path) as picture:
        return small_jpeg(np.asarray(picture.convert("RGB")), longest_px)


def small_jpeg(image: npt.NDArray[np.uint8], longest_px: int = 420) -> str:
    """An image (H, W, 3) for a metadata panel as a data URI, at most `THUMBNAIL_BYTES` of JPEG."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((longest_px, longest_px))
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def tile_overlay(
    image: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    mask: npt.NDArray[np.bool_],
    corners: Mapping[str, npt.NDArray[np.float64]],
    sides_px: tuple[float, float],
    longest_px: int = 1400,
) -> npt.NDArray[np.uint8]:
    """A slide with the outline of its tissue mask and its tiles, and a legend below, as (H, W, 3) uint8.

    `image` (h, w, 3) and `mask` (h, w), True on tissue, show the whole slide of `size_px` (width, height); `corners` holds
    the tiles' top-left corners (N, 2), level-0 pixels as `sides_px`, by what became of them: `kept`, or why they were
    dropped. Those are filled.
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


def _legend(width: int, counts: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """What the colours of `tile_overlay` mean, in as many lines as `width` needs."""
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
