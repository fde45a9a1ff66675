"""Reads TIFF scans: header facts by tiffslide, pixels block by block, without zarr.

Supports every complete TIFF that is tiled or in strips and 8-bit RGB: SVS, NDPI, QPTIFF, Philips, generic and OME-TIFF. Files
that are truncated, declare more than they hold, or have other pixels are refused on opening.
"""

import logging
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile
import tiffslide

from stpath_assets.errors import SlideError
from stpath_assets.slides.blocks import BlockCache, BlockLevel
from stpath_assets.slides.formats.base import UnsupportedDialect, vendor_of
from stpath_assets.slides.formats.directories import check_directories
from stpath_assets.slides.scale import power_of
from stpath_assets.slides.source import Source

MAX_SIDE_PX = 1 << 20
"""Longest side of a scan, pixels: 26 cm at 0.25 µm per pixel, longer than any glass."""

MAX_BLOCK_BYTES = 1 << 30
"""Largest tile or strip that is decoded, bytes. A file of kilobytes can declare one of any size."""

_OFFSETS = (324, 273)  # TileOffsets, StripOffsets

_ODD_PROPORTION = 0.05
"""Difference of the proportions of two levels from which one is taken as damaged: well above any rounding."""

_RGB, _YCBCR = 2, 6
# JPEG and JPEG 2000, including Aperio's, whose YCbCr becomes RGB on decoding.
_COLOUR_CODECS = (6, 7, 33003, 33004, 33005, 34712)

# `20x` in the XML of Akoya's description; only the number is used.
_QPI_OBJECTIVE = re.compile(r"<Objective>\s*(\d+(?:\.\d+)?)\s*[xX]\b")

_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3}

# tifffile logs complaints about a file. Without any handler, Python would print them next to our own error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffBackend:
    """A TIFF, local or over the network. See `base.Backend`."""

    name = "tiffslide"

    def __init__(self, source: Source) -> None:
        """Open a TIFF. Raises `SlideError` with what is wrong, `UnsupportedDialect`, or any exception of a parser."""
        if source.is_remote and not source.can_seek():
            source = Source(source.local())
        self._file = source.open()
        self._slide = None
        try:
            check_directories(source.name, self._file, source.size_bytes())
            self._file.seek(0)
            self._slide = tiffslide.TiffSlide(self._file, tifffile_options={"name": source.name})
            tif = self._slide.ts_tifffile
            _refuse_dialect(tif)
            properties = self._slide.properties
            series = tif.series[properties["tiffslide.series-index"]]
            if "tiffslide.series-composition" in properties:
                raise UnsupportedDialect("a scan of several areas")
            pages = [level.keyframe for level in series.levels]
            check_pixels(source.name, pages[0])
            if vendor_of(properties.get("tiffslide.vendor")) is None:
                check_largest(source.name, pages[0], tif.pages)
            check_complete(source.name, source.size_bytes(), pages)
            if not tif.is_philips:  # whose levels are padded to whole tiles
                check_proportions(source.name, pages)
            self.level_dimensions = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
            self.level_downsamples = tuple(map(float, self._slide.level_downsamples))
            self.mpp, self.objective_power = _scale_of(tif, properties)
            known = "philips" if tif.is_philips else "akoya" if tif.is_qpi else properties.get("tiffslide.vendor")
            self.vendor = vendor_of(known)
            self.files: Sequence[Path] = () if source.is_remote else (source.path,)
            cache = BlockCache()
            self._levels = [BlockLevel(page, cache) for page in pages]
            for number, level in enumerate(self._levels):
                if (odd := level.find_odd_block()) is not None:
                    raise SlideError(
                        f"{source.name}: level {number} {odd}; its header is damaged, copy or convert it again"
                    )
        except BaseException:
            self.close()
            raise

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """See `base.Backend`."""
        return self._levels[level].read(x, y, width, height)

    def close(self) -> None:
        """Close the file."""
        if self._slide is not None:
            self._slide.close()
        self._file.close()


def _refuse_dialect(tif: Any) -> None:
    """Raise `UnsupportedDialect` for files that tiffslide opens but reads wrongly."""
    if tif.is_bif:
        raise UnsupportedDialect("Ventana's tiles overlap")


def check_pixels(name: str, page: Any) -> None:
    """Raise `SlideError` for pixels other than 8-bit RGB, whatever their compression."""
    photometric, compression = int(page.photometric), int(page.compression)
    rgb = photometric == _RGB or (photometric == _YCBCR and compression in _COLOUR_CODECS)
    if page.dtype == np.uint8 and page.samplesperpixel == 3 and page.planarconfig == 1 and rgb:
        return
    kind = {0: "greyscale", 1: "greyscale", 3: "palette", 5: "CMYK", 8: "CIELAB"}.get(photometric, "RGB")
    if kind == "RGB":
        kind = "RGB with an alpha channel" if page.samplesperpixel == 4 else kind
        kind = "RGB in separate planes" if page.planarconfig != 1 else kind
        kind = "YCbCr without JPEG" if photometric == _YCBCR else kind
    raise SlideError(
        f"{name}: is {kind}, {page.samplesperpixel} samples of {page.dtype} a pixel; H&E scans are 8-bit RGB, convert it first"
    )


def check_complete(name: str, size: int | None, pages: Sequence[Any]) -> None:
    """Raise `SlideError` if a file has less data than its header says.

    A truncated file opens without error, because its header is complete, but the header points beyond the end.
    """
    for page in pages:
        offsets, counts = page.dataoffsets, page.databytecounts
        # tifffile drops what is more than the size needs. A page of a series may be a frame, which has no tags.
        declared = next((page.tags[code].count for code in _OFFSETS if code in page.tags), len(offsets))
        if max(page.imagewidth, page.imagelength) > MAX_SIDE_PX:
            raise SlideError(
                f"{name}: declares {page.imagewidth} by {page.imagelength} pixels, too many for a scan; it is damaged"
            )
        if len(offsets) == 0 or sum(counts) == 0:
            raise SlideError(f"{name}: a level has no image data; copy or convert it again")
        if len(offsets) != len(counts):  # the header itself is cut off
            raise SlideError(f"{name}: is truncated within its header; copy it again")
        needed = math.prod(page.chunked)
        if max(len(offsets), declared) != needed:
            raise SlideError(
                f"{name}: declares {page.imagewidth} by {page.imagelength} pixels, but holds {len(offsets)} of their "
                f"{needed} blocks; copy or convert it again"
                if len(offsets) < needed
                else f"{name}: declares {page.imagewidth} by {page.imagelength} pixels in {needed} blocks, but holds "
                f"{declared} blocks; copy or convert it again"
            )
        # Uncompressed strips are read in part, and cannot be larger than the file.
        if page.compression != 1 and math.prod(page.chunks) * page.dtype.itemsize > MAX_BLOCK_BYTES:
            raise SlideError(
                f"{name}: keeps {page.chunks[1]} by {page.chunks[0]} pixels in one block; convert it to a tiled TIFF"
            )
        end = max(o + n for o, n in zip(offsets, counts, strict=True))
        if size is not None and end > size:
            raise SlideError(f"{name}: is truncated: {size} bytes of at least {end}; copy it again")


def check_largest(name: str, first: Any, pages: Any) -> None:
    """Raise `SlideError` if another image of a TIFF without a known dialect is larger than the one that is taken as the scan.

    A scan whose dialect cannot be told, because its header is damaged, may show a side image instead, with a patient's label.
    """
    largest = max((page.keyframe for page in pages), key=lambda page: page.imagewidth * page.imagelength)
    if largest.imagewidth * largest.imagelength > first.imagewidth * first.imagelength:
        raise SlideError(
            f"{name}: its first image has {first.imagewidth} by {first.imagelength} pixels, and a later one "
            f"{largest.imagewidth} by {largest.imagelength}; its header is damaged, or it is no scan: convert it again"
        )


def check_proportions(name: str, pages: Sequence[Any]) -> None:
    """Raise `SlideError` if the levels of a pyramid differ in proportion, as they do if a width or height is damaged."""
    first = pages[0]
    for number, page in enumerate(pages):
        ratio = (first.imagewidth / page.imagewidth) / (first.imagelength / page.imagelength)
        # Some writers cut or pad a level to whole pixels of the level above, others to an even number.
        if abs(math.log(ratio)) > _ODD_PROPORTION + 2 / page.imagewidth + 2 / page.imagelength:
            raise SlideError(
                f"{name}: level {number} has {page.imagewidth} by {page.imagelength} pixels, in another proportion than "
                f"{first.imagewidth} by {first.imagelength}; its header is damaged, copy or convert it again"
            )


def _scale_of(tif: Any, properties: Any) -> tuple[tuple[float, float] | None, float | None]:
    """Return µm per pixel (x, y) and objective power from the file. OME-XML is more exact than the resolution tags."""
    mpp, power = ome_scale(tif.ome_metadata) if tif.is_ome else (None, None)
    if mpp is None:
        with suppress(KeyError, TypeError, ValueError):
            mpp = float(properties["tiffslide.mpp-x"]), float(properties["tiffslide.mpp-y"])
    if tif.is_qpi and (said := _QPI_OBJECTIVE.search(tif.pages.first.description)):
        power = power_of(said[1])
    return mpp, power or power_of(properties.get("tiffslide.objective-power"))


def ome_scale(xml: str) -> tuple[tuple[float, float] | None, float | None]:
    """Return the µm per pixel (x, y) and nominal magnification of the first image in OME-XML, each None if missing.

    Only numbers and units are read (OME schema 2016-06).
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None, None
    pixels, objective = root.find("{*}Image/{*}Pixels"), root.find("{*}Instrument/{*}Objective")
    mpp = None
    if pixels is not None:
        with suppress(KeyError, ValueError):
            x, y = (
                float(pixels.attrib[f"PhysicalSize{a}"]) * _UM[pixels.get(f"PhysicalSize{a}Unit", "µm")] for a in "XY"
            )
            mpp = x, y
    return mpp, None if objective is None else power_of(objective.get("NominalMagnification"))


def check_tiff(name: str, path: Path) -> None:
    """Apply `check_complete` to every page of a local TIFF that another backend reads. Other files pass."""
    with suppress(tifffile.TiffFileError), tifffile.TiffFile(path) as tif:
        check_complete(name, path.stat().st_size, list(tif.pages))
