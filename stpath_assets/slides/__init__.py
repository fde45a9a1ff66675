"""Slides: scans as they lie on disk, and the register of those that a data root knows.

First stage of the way of the data. Nothing here looks at tissue; that begins in `tiles`.
"""

from stpath_assets.slides.registered import Registered, slide_id_from_name
from stpath_assets.slides.registry import Registry
from stpath_assets.slides.slide import Slide, open_slide

__all__ = ["Registered", "Registry", "Slide", "open_slide", "slide_id_from_name"]
