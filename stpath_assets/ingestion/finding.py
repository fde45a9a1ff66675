"""Finds the scans of a folder, with what its manifest and sidecars say of them."""

import os
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from upath import UPath

from stpath_assets.errors import ManifestError
from stpath_assets.ingestion.files import Exists, Location, Seen, walk
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

    `refused` are scans that are left out because of their sidecar, with the reason. `seen` is what an object store said of its
    files.
    """

    entries: list[Entry] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)


def find_scans(folder: Location) -> Found:
    """Return the scans below a folder of this machine or of an object store, sorted by path.

    Hidden files and folders are left out. Links to folders are followed, each folder once. A manifest says what is known of the
    scans in and below its folder; a sidecar wins over it as a whole. Nothing but manifests and sidecars is opened.
    """
    found, named = Found(), dict[str, Entry]()
    top = folder if isinstance(folder, UPath) else folder.absolute()
    files = dict[str, Location]()
    for path, seen in walk(top, found.problems):
        files[str(path)] = path
        if seen is not None:
            found.seen[str(path)] = seen
    folders = {scan[:i] for scan in found.seen for i, c in enumerate(scan) if c == "/"}

    def is_there(path: Location) -> bool:
        # What an object store has is known from its listing; asking for each file would take a second for some fifty.
        return str(path) in found.seen or str(path) in folders if isinstance(path, UPath) else path.exists()

    for path in files.values():
        if path.name == MANIFEST:
            _read_into(path, named, found, is_there)
    used = _used(named.values())
    for scan, path in files.items():
        if path.name == MANIFEST or scan in used:
            continue
        sidecar = next((s for s in sidecars_of(path) if str(s) in files), None)
        is_scan = path.suffix.lower() in SCAN_SUFFIXES or (path.suffix.lower() in _IMAGES and sidecar is not None)
        entry = named.get(scan, Entry(scan) if is_scan else None)
        if entry is None:
            found.others += not _describes_a_scan(path, files)
            continue
        try:
            found.entries.append(
                entry if sidecar is None else Entry(scan, read_sidecar(sidecar, is_there), str(sidecar))
            )
        except ManifestError as e:
            found.problems.append(str(e))
            found.refused[scan] = str(e)
    found.entries += [entry for scan, entry in named.items() if not scan.startswith(f"{top}{os.sep}")]
    return found


def _read_into(path: Location, named: dict[str, Entry], found: Found, is_there: Exists) -> None:
    try:
        manifest = read_manifest(path, is_there)
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


def _describes_a_scan(path: Location, files: Container[str]) -> bool:
    """Return whether a file is the sidecar of a scan beside it."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        return False
    stem = str(path.with_suffix(""))
    return any(stem + suffix in files for suffix in ("", *SCAN_SUFFIXES, *_IMAGES))
