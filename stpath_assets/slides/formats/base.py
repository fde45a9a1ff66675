"""What a reader of scans is, and the words that readers share."""

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
"""The only vendor texts that are ever stored: a file's own words may be anything, a patient's name included."""

_QUOTED = re.compile(r"""'.*'|".*"|“.*”|‘.*’|`.*`""", re.DOTALL)


class Backend(Protocol):
    """An open scan. Levels are ordered from the finest; all facts but pixels are as the file states them.

    `mpp` is (x, y) in µm per pixel at level 0, `vendor` one of `VENDORS`, and `files` every local file that the
    scan consists of, empty where it is read over the network.
    """

    name: str
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    mpp: tuple[float, float] | None
    objective_power: float | None
    vendor: str | None
    files: Sequence[Path]

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Pixels of a box in the level's own pixels, inside it: (height, width, 3) uint8 RGB; raises anything."""

    def close(self) -> None:
        """Closes the file."""


class UnsupportedDialect(Exception):
    """A TIFF that tiffslide opens but does not read rightly."""


def vendor_of(text: object) -> str | None:
    """The vendor that a format's name stands for, or None."""
    word = str(text).lower().replace("philips-tiff", "philips").replace("philips_tiff", "philips")
    return word if word in VENDORS else None


def plainly(cause: Exception) -> str:
    """What an error says, in one line without what it quotes: parsers quote the file, whose words may be a patient's."""
    said = " ".join(_QUOTED.sub("…", str(cause)).split())[:120]
    return said if type(cause) is ValueError else f"{type(cause).__name__}: {said}"


def unreadable(source: Source, cause: Exception) -> SlideError:
    """One line for whatever a file that is no scan makes its parser raise."""
    return SlideError(
        f"{source.name}: is not a slide that can be read ({plainly(cause)}); "
        "give a whole-slide TIFF, SVS, NDPI, SCN, MRXS, VMS, BIF or DICOM, or a PNG or JPEG with its --mpp"
    )
