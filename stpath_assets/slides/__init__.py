"""Slides: opening scans, and registering them in a data root.

The first stage of the data flow. Tissue is detected later, in `tiles`.
"""

from stpath_assets.slides.facts import look_at
from stpath_assets.slides.registered import Registered, name_without_suffix, slide_id_from_name
from stpath_assets.slides.registry import Registry
from stpath_assets.slides.slide import Slide, open_slide

__all__ = ["Registered", "Registry", "Slide", "look_at", "name_without_suffix", "open_slide", "slide_id_from_name"]
