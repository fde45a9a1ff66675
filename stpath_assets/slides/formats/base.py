"""The interface of a scan reader, and texts that readers share."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SlideError
from stpath_assets.slides.source import Source

VENDORS = frozenset(
    {
        "aperio",
        "akoya",
        "argos",
        "dicom",
        "hamamatsu",
        "huron",
        "leica",
        "mirax",
        "philips",
        "sakura",
        "trestle",
        "ventana",
        "zeiss",
    }
)
"""The only vendor texts that are ever stored. A file's own text could be anything, even a patient's name."""

_QUOTED = re.compile(r"""'.*'|".*"|“.*”|‘.*’|`.*`""", re.DOTALL)


class Backend(Protocol):
    """An open scan. Levels are ordered from the finest. All facts except pixels are as the file states them.

    `mpp` is (x, y) in µm per pixel at level 0, `vendor` one of `VENDORS`, and `files` every local file of the scan, empty if
    it is read over the network.
    """

    name: str
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None
    objective_power: float | None
    vendor: str | None
    files: Sequence[Path]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return the pixels of a box inside a level, in its pixels: (height, width, 3) uint8 RGB. May raise any exception."""

    def close(self) -> None:
        """Close the file."""


class UnsupportedDialect(Exception):
    """A TIFF that tiffslide opens but reads wrongly."""


def vendor_of(text: object) -> str | None:
    """Return the vendor of a format by its name, or None."""
    word = str(text).lower().replace("philips-tiff", "philips").replace("philips_tiff", "philips")
    return word if word in VENDORS else None


def plainly(cause: Exception) -> str:
    """Return an error's text as one line without quotations: parsers quote the file, which may hold a patient's name."""
    said = " ".join(_QUOTED.sub("…", str(cause)).split())[:120]
    return said if type(cause) is ValueError else f"{type(cause).__name__}: {said}"


def unreadable(source: Source, cause: Exception) -> SlideError:
    """Return the one-line error for a file that a parser could not read."""
    return SlideError(
        f"{source.name}: is not a readable slide ({plainly(cause)}); "
        "give a whole-slide TIFF, SVS, NDPI, SCN, MRXS, VMS, BIF or DICOM, or a PNG or JPEG with its --mpp"
    )
