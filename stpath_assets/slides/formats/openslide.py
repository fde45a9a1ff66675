"""Reads, with OpenSlide, scans that are not TIFF or whose TIFF dialect tiffslide does not read.

These are MIRAX (.mrxs), Hamamatsu VMS, Ventana BIF, Trestle, Sakura, Zeiss and DICOM whole-slide images.
"""

import configparser
import struct
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stpath_assets.errors import SlideError
from stpath_assets.slides.formats.base import plainly, unreadable, vendor_of
from stpath_assets.slides.formats.tiff import check_tiff
from stpath_assets.slides.scale import power_of
from stpath_assets.slides.source import Source


def detect_format(path: Path) -> str | None:
    """Return OpenSlide's name of a file's format, or None if it is unknown or OpenSlide is not available."""
    try:
        import openslide
    except (ImportError, OSError):  # no wheel for this platform
        return None
    format_: str | None = openslide.OpenSlide.detect_format(str(path))
    return format_


class OpenSlideBackend:
    """A scan that OpenSlide reads. See `base.Backend`.

    Unscanned areas, which some formats leave out, have the scan's background colour. On levels whose downsample is not a
    whole number, OpenSlide rounds positions itself, by less than a pixel of the level.
    """

    name = "openslide"

    def __init__(self, source: Source) -> None:
        """Open a scan. Raises `SlideError` if OpenSlide cannot open it, or parts of it are missing."""
        import openslide

        self._path, self._name = source.local(), source.name
        try:
            check_tiff(source.name, self._path)
        except SlideError:
            raise
        except Exception as e:  # parsers of damaged files raise anything
            raise unreadable(source, e) from None
        self._slide: Any = self._opened()
        try:
            p = self._slide.properties
            self.level_dimensions = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
            self.level_downsamples = tuple(map(float, self._slide.level_downsamples))
            self.mpp: tuple[float, float] | None = None
            with suppress(KeyError, ValueError):
                self.mpp = float(p[openslide.PROPERTY_NAME_MPP_X]), float(p[openslide.PROPERTY_NAME_MPP_Y])
            self.objective_power = power_of(p.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER))
            self.vendor = vendor_of(p.get(openslide.PROPERTY_NAME_VENDOR))
            self._background = _colour(p.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR))
            self.files: Sequence[Path] = files_of(self._path, self.vendor, p.get("dicom.SeriesInstanceUID"))
            for level, (width, height) in enumerate(self.level_dimensions):
                self._probe(level, width - 1, height - 1)
        except BaseException:
            self.close()
            raise

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """See `base.Backend`."""
        import openslide

        downsample = self.level_downsamples[level]
        box = (round(x * downsample), round(y * downsample)), level, (width, height)
        try:
            region = self._slide.read_region(*box)
        except openslide.OpenSlideError:
            # After an error, OpenSlide refuses all calls, so this error may be another thread's. The old handle closes
            # itself once no thread uses it.
            fresh = self._opened()
            try:
                region = fresh.read_region(*box)
            except openslide.OpenSlideError:
                self._slide = self._opened()
                raise
            self._slide = fresh
        if region.getextrema()[3] == (255, 255):
            return np.asarray(region.convert("RGB"))
        whole = Image.new("RGB", region.size, self._background)
        whole.paste(region, mask=region)
        return np.asarray(whole)

    def close(self) -> None:
        """Close the scan."""
        self._slide.close()

    def _opened(self) -> Any:
        import openslide

        try:
            return openslide.OpenSlide(str(self._path))
        except openslide.OpenSlideError as e:
            raise SlideError(
                f"{self._name}: is not a readable slide ({plainly(e)}); "
                "copy it again, with all the files that belong to it"
            ) from None

    def _probe(self, level: int, x: int, y: int) -> None:
        """Read a pixel of each level: most formats keep pixels in files that opening does not touch."""
        try:
            self.read_level(level, x, y, 1, 1)
        except Exception as e:
            raise SlideError(
                f"{self._name}: level {level} cannot be read ({plainly(e)}); it is damaged or one of its files "
                "is missing, copy it again"
            ) from e


def files_of(path: Path, vendor: str | None, dicom_series: str | None = None) -> tuple[Path, ...]:
    """Return every file of a scan: some formats keep pixels next to the file that is opened."""
    others: list[Path] = []
    if vendor == "mirax":
        others = [f for f in path.with_suffix("").iterdir() if f.is_file()]
    elif vendor == "hamamatsu" and path.suffix.lower() in (".vms", ".vmu"):
        keys = configparser.RawConfigParser(strict=False)
        keys.read_string(path.read_bytes().decode("latin-1"))
        named = {Path(v).name for s in keys.sections() for v in keys[s].values() if v}
        others = [path.parent / n for n in named if (path.parent / n).is_file()]
    elif vendor == "dicom" and dicom_series:
        uid = dicom_series.encode() + b"\0" * (len(dicom_series) % 2)
        element = b"\x20\0\x0e\0UI" + struct.pack("<H", len(uid)) + uid  # (0020,000E), explicit little endian
        others = [f for f in path.parent.iterdir() if f.is_file() and f != path and _starts_with_dicom(f, element)]
    return (path, *sorted(others))


def _starts_with_dicom(path: Path, element: bytes) -> bool:
    with closing(path.open("rb")) as f:
        return f.read(132)[128:] == b"DICM" and element in f.read(1 << 20)


def _colour(text: str | None) -> tuple[int, int, int]:
    """Return a hexadecimal colour as RGB, white if there is none."""
    try:
        red, green, blue = bytes.fromhex(text or "ffffff")
    except ValueError:
        return 255, 255, 255
    return red, green, blue
