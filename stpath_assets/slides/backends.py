"""What reads a scan, chosen by what the file is and not by its name.

TIFF dialects go to tiffslide's reader (`tiff`), what it cannot read and all other scanner formats to OpenSlide,
PNG and JPEG to Pillow (`formats`). A backend gives facts as the file states them; `slide` judges them.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SlideError
from stpath_assets.slides.source import Source

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _JPEG, _DICOM = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"DICM"

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


def open_backend(source: Source) -> Backend:
    """The backend that reads a scan. Raises `SlideError` for what is missing, empty, no scan, truncated, or not 8-bit RGB."""
    source.check()
    head = source.head(132)
    with warnings.catch_warnings():
        # tiffslide warns of what it knows of a dialect; a user cannot do anything about it.
        warnings.simplefilter("ignore")
        if head.startswith(_TIFF):
            return _open_tiff(source)
        return _open_other(source, head)


def vendor_of(text: object) -> str | None:
    """The vendor that a format's name stands for, or None."""
    word = str(text).lower().replace("philips-tiff", "philips").replace("philips_tiff", "philips")
    return word if word in VENDORS else None


def _open_tiff(source: Source) -> Backend:
    from stpath_assets.slides.tiff import TiffBackend

    try:
        return TiffBackend(source)
    except SlideError:
        raise
    except Exception as e:  # parsers of damaged files raise anything
        from stpath_assets.slides.formats import OpenSlideBackend, detected

        # A generic TIFF that tiffslide cannot parse is damaged; OpenSlide would find that out tile by tile.
        if isinstance(e, UnsupportedDialect) or detected(source.local()) not in (None, "generic-tiff"):
            try:
                return OpenSlideBackend(source)
            except SlideError:
                if isinstance(e, UnsupportedDialect):
                    raise
        # Without its cause: an error that is stored with its causes would hold what `plainly` left out.
        raise unreadable(source, e) from None


def _open_other(source: Source, head: bytes) -> Backend:
    from stpath_assets.slides.formats import ImageBackend, OpenSlideBackend, detected

    if source.is_remote and (head[128:132] == _DICOM or source.path.suffix.lower() in (".mrxs", ".vms", ".vmu")):
        raise SlideError(f"{source.name}: lies beside files that belong to it; copy them all to a local folder first")
    if not source.is_remote and detected(source.path) is not None:
        return OpenSlideBackend(source)
    if head.startswith(_JPEG) and source.path.suffix.lower() == ".mrxs":
        raise SlideError(
            f"{source.name}: its folder {source.path.stem} is missing or not whole; copy it beside the scan"
        )
    if head.startswith((_PNG, _JPEG)):
        return ImageBackend(source)
    raise unreadable(source, ValueError(_what(head)))


def _what(head: bytes) -> str:
    if head[128:132] == _DICOM:
        return "a DICOM file, but no whole-slide image"
    return (
        "a text file" if head and all(b in b"\t\n\r" or 32 <= b < 127 for b in head) else "not a format that is known"
    )


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
