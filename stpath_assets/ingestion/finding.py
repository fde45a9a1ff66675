"""Finds the scans of a folder, with what its manifest and sidecars say of them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stpath_assets.errors import ManifestError
from stpath_assets.ingestion.known import Entry
from stpath_assets.ingestion.manifest import MANIFEST, read_manifest, read_sidecar, sidecars_of

SCAN_SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".qptiff", ".btf", ".tf8", ".svslide", ".czi",
     ".dcm")
)  # fmt: skip
"""Files that are taken for scans. A PNG or JPEG is one only if a manifest names it or a sidecar lies beside it."""

_IMAGES = frozenset((".png", ".jpg", ".jpeg"))


@dataclass
class Found:
    """What a folder holds: scans, the number of other files, and one line for each thing that cannot be used.

    `refused` are scans that are left out because of their sidecar, with the reason.
    """

    entries: list[Entry] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def find_scans(folder: Path) -> Found:
    """Return the scans below a folder, sorted by path.

    Hidden files and folders are left out. Links to folders are followed, each folder once. A manifest says what is known of the
    scans in and below its folder; a sidecar wins over it as a whole. Nothing but manifests and sidecars is opened.
    """
    found, named = Found(), dict[str, Entry]()
    files = list(_walk(folder.absolute(), found.problems))
    for path in files:
        if path.name == MANIFEST:
            _read_into(path, named, found)
    used = _used(named.values())
    for path in files:
        if path.name == MANIFEST or str(path) in used:
            continue
        sidecar = next((s for s in sidecars_of(path) if s.is_file()), None)
        is_scan = path.suffix.lower() in SCAN_SUFFIXES or (path.suffix.lower() in _IMAGES and sidecar is not None)
        entry = named.get(str(path), Entry(str(path)) if is_scan else None)
        if entry is None:
            found.others += not _describes_a_scan(path)
            continue
        try:
            found.entries.append(entry if sidecar is None else Entry(str(path), read_sidecar(sidecar), str(sidecar)))
        except ManifestError as e:
            found.problems.append(str(e))
            found.refused[str(path)] = str(e)
    found.entries += [entry for scan, entry in named.items() if not scan.startswith(f"{folder.absolute()}{os.sep}")]
    return found


def _read_into(path: Path, named: dict[str, Entry], found: Found) -> None:
    try:
        manifest = read_manifest(path)
    except ManifestError as e:
        found.problems.append(str(e))
        return
    named.update({entry.scan: entry for entry in manifest.entries})
    found.problems += manifest.problems


def _used(entries: Iterable[Entry]) -> set[str]:
    """Return the files that entries name as something else than a scan."""
    return {
        value
        for entry in entries
        for value in (entry.known.spots, entry.known.regions, entry.known.features)
        if value is not None
    }


def _describes_a_scan(path: Path) -> bool:
    """Return whether a file is the sidecar of a scan beside it."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        return False
    stem = path.with_suffix("")
    return stem.is_file() or any(stem.with_name(stem.name + suffix).is_file() for suffix in (*SCAN_SUFFIXES, *_IMAGES))


def _walk(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the files below a folder, sorted. A link that leads back to a folder on the way is not followed again."""
    seen = set[tuple[int, int]]()

    def refused(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read ({error.strerror}); it is left out")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        stat = os.stat(root)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))
