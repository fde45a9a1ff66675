"""Writes reports: content into templates, into one file, complete or not at all."""

import math
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stpath_assets.report.content import cohort_of, slide_of
from stpath_assets.settings import Settings
from stpath_assets.storage import atomic_file
from stpath_assets.version import __version__
from stpath_assets.viewer import link_to


def write_cohort(settings: Settings, path: Path, pages: Path | None = None) -> None:
    """Write the report of all slides. With `pages`, a folder beside it, each slide's name leads to its page there."""
    content = cohort_of(settings)
    folder = None if pages is None else pages.name
    _write(path, "cohort.html", settings, content=content, folder=folder)


def write_slide(settings: Settings, slide_id: str, path: Path) -> None:
    """Write the report of a slide. Raises `SlideError` for a slide that is not registered, or retired."""
    _write(path, "slide.html", settings, content=slide_of(settings, slide_id))


def _write(path: Path, template: str, settings: Settings, **values: Any) -> None:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = (
        _templates()
        .get_template(template)
        .render(version=__version__, made=made, link=lambda s: link_to(settings, s), **values)
    )
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@lru_cache(maxsize=1)
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("stpath_assets.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": _number, "percent": _percent, "count": _count}
    return found


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.0%}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
