"""One scan on disk: its header, its scale and its pixels.

Pixels come from tiffslide. The scale comes from the file or from the user and is never guessed. Label and
macro images and free-text tags stay in the file. What is known of many scans belongs in `slides.registry`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiffslide
from PIL import Image

from stpath_assets.errors import ScaleError, SlideError

MIN_MPP, MAX_MPP = 0.05, 5.0
"""Scales outside are no microscope scan: 96 dpi, a viewer's default, reads as 264 µm per pixel."""

MAX_CONTRADICTION = 0.05
"""How far the user's scale may lie from the file's before it is worth a warning, relative."""


@dataclass
class Slide:
    """An open scan. Coordinates are level-0 pixels, x to the right and y down.

    `mpp` is µm per pixel at level 0 and `mpp_source` says where it comes from (`file` or `user`); `warnings`
    holds what a user should know before trusting the scan.
    """

    path: Path
    name: str
    width_px: int
    height_px: int
    mpp: float
    mpp_source: str
    mpp_file: float | None
    vendor: str | None
    level_downsamples: tuple[float, ...]
    level_dimensions: tuple[tuple[int, int], ...]
    warnings: list[str] = field(default_factory=list)
    _handle: Any = field(default=None, repr=False)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Pixels of a box in the level's own pixels, inside it: (height, width, 3) uint8 RGB.

        Raises `SlideError` naming the box where it cannot be decoded: no pixel is ever made up.
        """
        level_width, level_height = self.level_dimensions[level]
        if not (0 <= x <= x + width <= level_width and 0 <= y <= y + height <= level_height):
            raise ValueError(f"box ({x}, {y}, {width}, {height}) leaves level {level} of {self.name}")
        downsample = self.level_downsamples[level]
        location = (_level0(x, downsample), _level0(y, downsample))
        try:
            pixels = self._handle.read_region(location, level, (width, height), as_array=True)
        except Exception as e:  # codecs raise types of their own; every one means the same to the user
            raise SlideError(
                f"{self.name}: level {level} cannot be read at x={location[0]}, y={location[1]} "
                f"({type(e).__name__}); the file is damaged, copy or scan it again"
            ) from e
        return np.ascontiguousarray(pixels[..., :3])

    def read_scaled(self, mpp: float, band_px: int = 4096) -> npt.NDArray[np.uint8]:
        """The whole scan at about `mpp` µm per pixel, by area, as (H, W, 3) uint8.

        H = round(height · slide mpp / mpp), at least 1; W likewise. Read in bands from the smallest level
        that is at least as fine, so that memory does not grow with the scan's height; which level depends on
        the scan alone.
        """
        width = max(1, round(self.width_px * self.mpp / mpp))
        height = max(1, round(self.height_px * self.mpp / mpp))
        level = self.level_for(mpp)
        level_width, level_height = self.level_dimensions[level]
        rows = max(1, math.floor(band_px * height / level_height))
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            y0, y1 = top * level_height / height, bottom * level_height / height
            first, last = math.floor(y0), min(math.ceil(y1), level_height)
            band = self.read_level(level, 0, first, level_width, last - first)
            box = (0.0, y0 - first, float(level_width), y1 - first)
            out[top:bottom] = np.asarray(
                Image.fromarray(band).resize((width, bottom - top), Image.Resampling.BOX, box=box)
            )
        return out

    def level_for(self, mpp: float) -> int:
        """The coarsest level that is at least as fine as `mpp`; level 0 where none is."""
        # A tenth of a percent: level sizes are rounded to whole pixels, so a "4x" level is rarely exactly 4x.
        fine = [i for i, d in enumerate(self.level_downsamples) if self.mpp * d <= mpp * 1.001]
        return max(fine, key=lambda i: self.level_downsamples[i], default=0)

    def thumbnail(self, longest_px: int = 768) -> npt.NDArray[np.uint8]:
        """The scan fitted into a square of `longest_px`, as (H, W, 3) uint8."""
        return self.read_scaled(self.mpp * max(self.width_px, self.height_px) / longest_px)

    def close(self) -> None:
        """Closes the file."""
        self._handle.close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Opens a scan.

    `mpp` (µm per pixel at level 0) is for scans whose file does not say; where both do, the given one wins,
    with a warning if they differ by more than 5 %.

    Raises `SlideError` for what is missing, no scan, truncated, or of pixels other than 8-bit RGB, and
    `ScaleError` where the scale is missing or absurd.
    """
    path = Path(path)
    name = path.name
    with _as_slide_error(path):
        handle = tiffslide.TiffSlide(path)
    try:
        with _as_slide_error(path):
            properties = handle.properties
            dimensions = tuple((int(w), int(h)) for w, h in handle.level_dimensions)
            downsamples = tuple(map(float, handle.level_downsamples))
            page = handle.ts_tifffile.pages[0]
        _check_pixels(name, page)
        _check_complete(name, path, handle)
        mpp_file, complaint = _file_mpp(name, properties)
        used, source, warnings = _choose_mpp(name, mpp, mpp_file, complaint)
        vendor = properties.get("tiffslide.vendor")
        width_px, height_px = dimensions[0]
        return Slide(
            path, name, width_px, height_px, used, source, mpp_file,
            None if vendor is None else str(vendor), downsamples, dimensions, warnings, handle,
        )  # fmt: skip
    except BaseException:
        handle.close()
        raise


@contextmanager
def _as_slide_error(path: Path) -> Iterator[None]:
    """Turns whatever a file that is no scan makes tiffslide raise into one line."""
    if not path.exists():
        raise SlideError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise SlideError(f"{path}: is a folder; give the scan's file")
    if path.stat().st_size == 0:
        raise SlideError(f"{path}: is empty (0 bytes); copy it again")
    try:
        yield
    except Exception as e:  # parsers of damaged files raise anything
        text = " ".join(str(e).split())[:120]
        raise SlideError(
            f"{path.name}: is not a slide that can be read ({type(e).__name__}: {text}); "
            "give a whole-slide TIFF, SVS, NDPI or SCN"
        ) from e


def _check_pixels(name: str, page: Any) -> None:
    if page.dtype != np.uint8 or page.samplesperpixel != 3:
        raise SlideError(
            f"{name}: has {page.samplesperpixel} samples of {page.dtype} a pixel; H&E scans are 8-bit RGB, convert it first"
        )


def _check_complete(name: str, path: Path, handle: Any) -> None:
    """A truncated file opens well, since its header is whole; what its header points to is not there."""
    size = path.stat().st_size
    for series_level in handle.ts_tifffile.series[0].levels:
        page = series_level.keyframe
        if len(page.dataoffsets) == 0 or sum(page.databytecounts) == 0:
            raise SlideError(f"{name}: a level has no image data; copy or convert it again")
        if len(page.dataoffsets) != len(page.databytecounts):  # the header itself is cut off
            raise SlideError(f"{name}: is truncated within its header; copy it again")
        end = max(o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        if end > size:
            raise SlideError(f"{name}: is truncated: {size} bytes of at least {end}; copy it again")


def _file_mpp(name: str, properties: Any) -> tuple[float | None, str]:
    """The file's scale, or None and why there is none that can be believed."""
    try:
        x, y = float(properties["tiffslide.mpp-x"]), float(properties["tiffslide.mpp-y"])
    except (KeyError, TypeError, ValueError):
        return None, "the file does not say its scale (mpp)"
    if not all(math.isfinite(v) and MIN_MPP <= v <= MAX_MPP for v in (x, y)):
        return None, (
            f"the file's scale, {x:.4g} µm per pixel, is no microscope's ({MIN_MPP:g} to {MAX_MPP:g}): "
            "most likely a viewer's 72 or 96 dpi, not an mpp"
        )
    if abs(x - y) > 0.01 * x:
        raise ScaleError(
            f"{name}: pixels are not square, {x:.4g} by {y:.4g} µm; resample the scan to square pixels first"
        )
    return x, ""


def _choose_mpp(name: str, given: float | None, in_file: float | None, complaint: str) -> tuple[float, str, list[str]]:
    if given is not None:
        if not (math.isfinite(given) and MIN_MPP <= given <= MAX_MPP):
            raise ScaleError(
                f"{name}: --mpp {given:g} is no microscope's scale; give µm per pixel at level 0, {MIN_MPP:g} to {MAX_MPP:g}"
            )
        if in_file is not None and abs(given - in_file) > MAX_CONTRADICTION * in_file:
            return given, "user", [
                f"{name}: the given mpp {given:g} contradicts the file's {in_file:.4g}; the given one is used"
            ]  # fmt: skip
        return given, "user", []
    if in_file is None:
        raise ScaleError(
            f"{name}: {complaint}; give µm per pixel at level 0 with --mpp (a 20x scan has about 0.5, a 40x about 0.25)"
        )
    return in_file, "file", []


def _level0(coordinate: int, downsample: float) -> int:
    """The level-0 coordinate that tiffslide, which truncates, maps back onto `coordinate`."""
    location = math.ceil(coordinate * downsample)
    return location if int(location / downsample) == coordinate else location + 1
