"""Pictures of a slide's results: expression maps over the tissue, and measured against predicted scatters.

Draws what it is given and reads no table. Every picture made with the demo weights says so. Figures are built without
pyplot, so that steps in threads do not share state.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from stpath_assets.storage import atomic_file

MAX_GENES = 12
"""Panels up to this size get a figure for every gene; larger ones for those that the settings name."""

THUMBNAIL_BYTES = 48_000
_MADE_FROM = "stpath_fingerprint"
_DEMO = "demo weights, not biology"


def chosen(genes: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The genes of a panel that get a figure: all of a small one, those `wanted` of a large one, or else its first."""
    if len(genes) <= MAX_GENES:
        return list(genes)
    return [g for g in wanted if g in set(genes)][:MAX_GENES] or list(genes)[:MAX_GENES]


def path_of(home: Path, slide_id: str, kind: str, gene: str) -> Path:
    """Where a figure belongs: figures/<slide_id>/<kind>_<gene>.png, the gene in characters every file system takes."""
    return home / "figures" / slide_id / f"{kind}_{re.sub(r'[^A-Za-z0-9_.-]', '_', gene)}.png"


def expression_map(
    thumbnail: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    centers_px: npt.NDArray[np.float64],
    side_px: float,
    values: npt.NDArray[np.float32],
    *,
    title: str,
    mpp: float,
    demo: bool,
) -> Figure:
    """Values of tiles in magma over the slide's thumbnail, beside the thumbnail alone.

    `size_px` is the slide's (width, height), `centers_px` (N, 2) and `side_px` are level-0 pixels, `values` (N,) log1p
    expression. Axes are in mm from the slide's top-left corner.
    """
    to_mm = mpp / 1000
    extent = (0.0, size_px[0] * to_mm, size_px[1] * to_mm, 0.0)
    # The view is the tissue with a margin: on a wide glass, a small section would be a speck.
    low = np.maximum((centers_px.min(0) - 3 * side_px) * to_mm, 0)
    high = np.minimum((centers_px.max(0) + 3 * side_px) * to_mm, (extent[1], extent[2]))
    height_to_width = float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 1.8))
    figure = Figure(figsize=(9.4, 4.1 * height_to_width + 0.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes in (left, right):
        axes.imshow(thumbnail, extent=extent, interpolation="bilinear", alpha=1.0 if axes is left else 0.35)
        axes.set_xlabel("mm")
        axes.set_aspect("equal")
    half = side_px / 2
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
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


def is_current(path: Path, made_from: str) -> bool:
    """Whether a figure is there, whole, and made from this."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(_MADE_FROM) == made_from
    except (OSError, SyntaxError):  # absent, or damaged: Pillow raises SyntaxError for a broken PNG
        return False


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


def grid_overlay(
    thumbnail: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    x_px: npt.NDArray,
    y_px: npt.NDArray,
    side_px: float,
) -> npt.NDArray[np.uint8]:
    """A thumbnail (H, W, 3) with the outlines of the kept tiles, corners in level-0 pixels, drawn on it."""
    from PIL import ImageDraw

    picture = Image.fromarray(thumbnail)
    draw, scale = ImageDraw.Draw(picture), picture.width / size_px[0]
    for x, y in zip((x_px * scale).tolist(), (y_px * scale).tolist(), strict=True):
        draw.rectangle((x, y, x + side_px * scale, y + side_px * scale), outline=(20, 120, 60))
    return np.asarray(picture)
