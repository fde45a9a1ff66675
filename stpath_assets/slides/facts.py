"""A scan's facts for the register, read in a child process: what a damaged scan does to a parser ends there.

The content's hash is computed here, because it parses nothing. Opening a scan for its pixels is in `slide`.
"""

from pathlib import Path
from typing import Any

from stpath_assets.confined import confined
from stpath_assets.errors import SlideError
from stpath_assets.slides.scale import Mpp
from stpath_assets.slides.slide import open_slide
from stpath_assets.slides.source import Source, content_of

_IN_THIS_PROCESS = "memory://"
"""fsspec's file system that no other process can see."""


def look_at(source: Source, mpp: float | Mpp | None) -> dict[str, Any]:
    """Return what a scan says, by column of `slides` without its hash and size, and its local `files`.

    Raises as `open_slide`, and `SlideError` if opening it takes too long or too much memory, or crashes its parser.
    """
    if source.uri.startswith(_IN_THIS_PROCESS):
        return _facts_of(source.uri, mpp)
    facts: dict[str, Any] = confined(
        _facts_of, source.uri, mpp, name=source.name, error=SlideError, in_new_child=source.is_remote
    )
    return facts | {"warnings": tuple(facts["warnings"])}


def read_facts(source: Source, mpp: float | Mpp | None) -> dict[str, Any]:
    """Return `look_at`, and the SHA-256 and size of all the scan's files."""
    facts = look_at(source, mpp)
    files = [Path(f) for f in facts.pop("files")]
    sha256, size_bytes = content_of(files) if files else source.content()
    return facts | {"sha256": sha256, "size_bytes": size_bytes}


def _facts_of(uri: str, mpp: float | Mpp | None) -> dict[str, Any]:
    """Open a scan and return its facts and its local files. Runs in the child."""
    with open_slide(uri, tuple(mpp) if isinstance(mpp, list) else mpp) as slide:
        local = Source(uri)
        return {
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "mpp": slide.mpp,
            "mpp_x": slide.mpp_xy[0],
            "mpp_y": slide.mpp_xy[1],
            "mpp_source": slide.mpp_source,
            "mpp_file": slide.mpp_file,
            "vendor": slide.vendor,
            "levels": len(slide.level_dimensions),
            "warnings": tuple(slide.warnings),
            "objective_power": slide.objective_power,
            "backend": slide.backend,
            "modified_ns": None if local.is_remote else local.path.stat().st_mtime_ns,
            "files": [str(f) for f in slide.files],
        }
