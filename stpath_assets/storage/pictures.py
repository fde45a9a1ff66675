"""Pictures in figures/<slide_id>/ of a data root: their paths, what they were made from, and small copies of them.

The stages draw them: `tiles.overlay`, `prediction.maps`, `evaluation.scatters`. Figures are built without pyplot, so that
steps in threads share no state.
"""

import base64
import hashlib
import html
import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stpath_assets.storage.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL_BYTES = 48_000
DEMO_NOTE = "demo weights, not biology"
"""The note on every picture made with the demo weights."""

_MADE_FROM = "stpath_fingerprint"
_SHOWN = 4  # pictures of a panel that metadata shows, for a glance


def folder_of(home: Path, slide_id: str, model: str = "") -> Path:
    """Return the folder of a slide's figures: figures/<slide_id>/, and in it <kind>-<name>/ for a predictor that `fit` made."""
    return home / "figures" / slide_id / (model.replace(":", "-") if ":" in model else "")


def path_of(home: Path, slide_id: str, kind: str, gene: str, model: str = "") -> Path:
    """Return the path of a figure in its folder: <kind>_<gene>.png, in characters that every file system accepts.

    A gene with other characters keeps a few digits of its hash, so that two genes never share a figure.
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", gene)
    if plain != gene:
        plain += "-" + hashlib.sha256(gene.encode()).hexdigest()[:8]
    return folder_of(home, slide_id, model) / f"{kind}_{plain}.png"


def save(figure: "Figure", path: Path, made_from: str) -> Path:
    """Write a figure as PNG, atomically, with the digest of what it was made from."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_file(path) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={"Software": None, _MADE_FROM: made_from})
    return path


def save_image(image: npt.NDArray[np.uint8], path: Path, made_from: str) -> Path:
    """Write an image (H, W, 3) as PNG, as `save` does for a figure."""
    about = PngInfo()
    about.add_text(_MADE_FROM, made_from)
    with atomic_file(path) as draft:
        Image.fromarray(image).save(draft, "PNG", pnginfo=about)
    return path


def is_current(path: Path, made_from: str) -> bool:
    """Return whether a complete figure with this digest exists."""
    try:
        with Image.open(path) as picture:
            picture.verify()
            return picture.info.get(_MADE_FROM) == made_from
    except (OSError, SyntaxError):  # absent, or damaged: Pillow raises SyntaxError for a broken PNG
        return False


def keep_only(home: Path, slide_id: str, kind: str, paths: Iterable[Path], model: str = "") -> None:
    """Remove a slide's figures of a kind that are not among `paths`, so that only current figures remain."""
    folder, kept = folder_of(home, slide_id, model), {p.name for p in paths}
    if not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(f"{kind}_") and entry.name.endswith(".png") and entry.name not in kept:
            Path(entry.path).unlink(missing_ok=True)


def keep_only_models(home: Path, slide_id: str, models: Iterable[str]) -> None:
    """Remove the folders of a slide's figures of other fitted predictors than these."""
    folder, kept = folder_of(home, slide_id), {folder_of(home, slide_id, model).name for model in models}
    for entry in list(os.scandir(folder)) if folder.is_dir() else ():
        if entry.is_dir() and entry.name not in kept:
            shutil.rmtree(entry.path)


def small_jpegs_of(paths: dict[str, Path], longest_px: int) -> dict[str, str]:
    """Return the first few figures of a panel, by gene, as `small_jpeg` does."""
    return {gene: small_jpeg_of(path, longest_px) for gene, path in list(paths.items())[:_SHOWN]}


def small_jpeg_of(path: Path, longest_px: int = 420) -> str:
    """Return a figure on disk as `small_jpeg` does."""
    with Image.open(path) as picture:
        return small_jpeg(np.asarray(picture.convert("RGB")), longest_px)


def small_jpeg(image: npt.NDArray[np.uint8], longest_px: int = 420) -> str:
    """Return an image (H, W, 3) for a metadata panel as a data URI, up to `THUMBNAIL_BYTES` of JPEG."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((longest_px, longest_px))
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= THUMBNAIL_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def card(
    title: str, facts: Mapping[str, object], image: npt.NDArray[np.uint8] | None = None, longest_px: int = 220
) -> str:
    """Return an object's HTML for a notebook: a title, a table of facts, and beside it a small picture (H, W, 3) if given."""
    rows = "".join(
        f"<tr><th style='text-align:left;font-weight:normal;opacity:.7'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    shown = "" if image is None else f"<img alt='{html.escape(title)}' src='{small_jpeg(image, longest_px)}'>"
    return (
        f"<div style='display:flex;gap:1em;align-items:center'>{shown}<div><b>{html.escape(title)}</b>"
        f"<table>{rows}</table></div></div>"
    )
