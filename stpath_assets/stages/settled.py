"""Whether the last run left nothing to do: a run that is up to date is known without going through the stages.

A stage is up to date if its part is (`states`). Figures and Dagster's records are made by runs beside the parts; so a run that
ended well notes how it left each slide, in dagster/settled.json of the data root, and a slide is settled while that still holds.
Losing the file costs one run in which every stage finds its part current.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages.plan import STAGES, Plan
from stpath_assets.stages.states import Survey
from stpath_assets.storage import Store, atomic_file, pictures
from stpath_assets.version import __version__


def is_settled(settings: Settings, rows: Sequence[Registered]) -> bool:
    """Return whether every stage of these slides is current and nothing changed since a run that ended well."""
    store, plan = Store.of(settings), Plan(settings)
    kept = _read(settings.home)
    if any(row.slide_id not in kept for row in rows):
        return False
    survey = Survey(store, plan)
    parts, failed = _parts(survey), {slide_id for _, slide_id in survey.failures}
    for row in rows:
        if any(getattr(row, f"asked_{name}") != value for name, value in settings.asked.items()):
            return False
        if row.slide_id in failed or kept[row.slide_id] != _digest(settings, parts.get(row.slide_id, []), row):
            return False
        if any(survey.state(stage, row).kind not in ("current", "nothing") for stage in STAGES):
            return False
    return True


def settle(settings: Settings, slide_ids: Iterable[str]) -> None:
    """Note how a run left slides."""
    survey = Survey(Store.of(settings), Plan(settings))
    rows, parts, kept = {row.slide_id: row for row in survey.rows}, _parts(survey), _read(settings.home)
    for slide_id in slide_ids:
        if slide_id in rows:
            kept[slide_id] = _digest(settings, parts.get(slide_id, []), rows[slide_id])
    with atomic_file(_path(settings.home)) as draft:
        draft.write_text(json.dumps(kept))


def _parts(survey: Survey) -> dict[str, list[tuple[str, str]]]:
    """Return table and digest of each slide's parts, sorted."""
    found: dict[str, list[tuple[str, str]]] = {}
    for (table, slide_id), part in sorted(survey.parts.items()):
        found.setdefault(slide_id, []).append((table, part.digest))
    return found


def _digest(settings: Settings, parts: list[tuple[str, str]], row: Registered) -> str:
    """Return the digest of what a run looks at: a slide's row, its scan's file, its parts and pictures, and what is drawn."""
    drawn = (settings.figure_genes, settings.max_lost, __version__)
    pictured = sorted(_files(pictures.folder_of(settings.home, row.slide_id)))
    text = json.dumps([row.row_fingerprint.digest, _stat(row.uri), parts, pictured, drawn])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stat(uri: str) -> tuple[int, int] | None:
    """Return size and time of a scan's file: another content of the same size is for the run to find."""
    try:
        stat = Path(uri).stat()
    except OSError:  # a URL, or gone, which `states` says
        return None
    return stat.st_size, stat.st_mtime_ns


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    if folder.is_dir():
        for entry in os.scandir(folder):
            if entry.is_dir():
                yield from _files(Path(entry.path))
            else:
                yield os.path.relpath(entry.path, folder.parent), entry.stat().st_size


def _path(home: Path) -> Path:
    return home / "dagster" / "settled.json"


def _read(home: Path) -> dict[str, str]:
    try:
        kept = json.loads(_path(home).read_text())
    except (OSError, ValueError):  # not there, or cut off: the next run writes it
        return {}
    return kept if isinstance(kept, dict) else {}
