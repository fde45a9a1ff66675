"""Chooses the reader of a scan by the file's content, not its name.

TIFF dialects go to `tiff` (tiffslide), what it cannot read and all other scanner formats to `openslide`, PNG and JPEG to `image`.
A backend gives facts as the file states them; `slide` judges them.
"""

import warnings

from stpath_assets.errors import SlideError
from stpath_assets.slides.formats.base import Backend, UnsupportedDialect, unreadable
from stpath_assets.slides.source import Source

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _JPEG, _DICOM = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"DICM"


def open_backend(source: Source) -> Backend:
    """Return the reader of a scan. Raises `SlideError` if it is missing, empty, not a scan, truncated, or not 8-bit RGB."""
    source.check()
    head = source.head(132)
    with warnings.catch_warnings():
        # tiffslide's warnings about dialects do not help a user.
        warnings.simplefilter("ignore")
        if head.startswith(_TIFF):
            return _open_tiff(source)
        return _open_other(source, head)


def _open_tiff(source: Source) -> Backend:
    from stpath_assets.slides.formats.tiff import TiffBackend

    try:
        return TiffBackend(source)
    except SlideError:
        raise
    except Exception as e:  # parsers of damaged files raise anything
        from stpath_assets.slides.formats.openslide import OpenSlideBackend, detect_format

        # A generic TIFF that tiffslide cannot parse, or takes for a dialect that OpenSlide does not see, is damaged; OpenSlide
        # would find out only tile by tile, or show one of its side images.
        if detect_format(source.local()) not in (None, "generic-tiff"):
            try:
                return OpenSlideBackend(source)
            except SlideError:
                if isinstance(e, UnsupportedDialect):
                    raise
        # Without the cause, whose text would contain what `plainly` left out.
        raise unreadable(source, e) from None


def _open_other(source: Source, head: bytes) -> Backend:
    from stpath_assets.slides.formats.image import ImageBackend
    from stpath_assets.slides.formats.openslide import OpenSlideBackend, detect_format

    if source.is_remote and (head[128:132] == _DICOM or source.path.suffix.lower() in (".mrxs", ".vms", ".vmu")):
        raise SlideError(f"{source.name}: consists of several files; copy them all to a local folder first")
    if not source.is_remote and detect_format(source.path) is not None:
        return OpenSlideBackend(source)
    if head.startswith(_JPEG) and source.path.suffix.lower() == ".mrxs":
        raise SlideError(
            f"{source.name}: its folder {source.path.stem} is missing or incomplete; copy it next to the scan"
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
