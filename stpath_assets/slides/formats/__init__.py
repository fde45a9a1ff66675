"""The readers of scans, one file each, and the choice between them."""

from stpath_assets.slides.formats.base import Backend
from stpath_assets.slides.formats.opening import open_backend

__all__ = ["Backend", "open_backend"]
