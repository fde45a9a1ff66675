"""Registers scans under ids that tell nobody anything, and keeps the key apart: `add --pseudonymize`.

An id is the start of a keyed hash (HMAC-SHA-256) of the scan's content; a patient's, one of the given id. The lake stores
these, and paths of links that are named after them. What they stand for is in a folder that only this user can read:

    secret      32 random bytes, hexadecimal; without it, the same scans get other ids
    key.csv     slide_id, file, patient_id, patient: what was registered as what
    files/      links to the scans and what belongs to them

Without that folder, the scans of these slides cannot be found again.
"""

import csv
import hashlib
import hmac
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from stpath_assets.errors import ManifestError, SlideError, StorageError
from stpath_assets.ingestion.known import FROM_SPOTS, NONE, Entry, Known
from stpath_assets.slides import look_at, name_without_suffix
from stpath_assets.slides.scale import Mpp
from stpath_assets.slides.source import Source, content_of
from stpath_assets.spots import find_files
from stpath_assets.storage import atomic_file

COLUMNS = ("slide_id", "file", "patient_id", "patient")
_KEPT = ("cohort", "organ", "tech", "mpp", "genes")
"""What a pseudonymized slide keeps of what is known: other columns of a manifest may name a person."""


class Pseudonyms:
    """The folder of the key. Raises `StorageError` if it lies in the data root, whose copies are handed on."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder.expanduser().absolute()
        if self.folder.resolve().is_relative_to(home.resolve()):
            raise StorageError(
                f"{self.folder}: the key of pseudonyms must lie apart from the data root; set STPATH_PSEUDONYM_FOLDER"
            )
        try:
            for place in (self.folder, self.folder / "files"):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise StorageError(f"{self.folder}: cannot be made ({e.strerror}); set STPATH_PSEUDONYM_FOLDER") from e
        self._secret = self._read_secret()

    def disguise(self, entry: Entry) -> tuple[Entry, tuple[str, ...]]:
        """Return an entry under pseudonyms, with links in place of its files, and the names of columns that were dropped.

        Raises `SlideError` for a scan that cannot be linked or comes with an id of its own.
        """
        source, known = Source(entry.scan), entry.known
        if source.is_remote:
            raise SlideError(f"{source.name}: is at a URL, which names it; copy it to this machine to pseudonymize it")
        if known.slide_id is not None:
            raise SlideError(f"{source.name}: has the id {known.slide_id}; with --pseudonymize, give none")
        if known.mpp == FROM_SPOTS:
            raise SlideError(f"{source.name}: with --pseudonymize, give mpp as a number")
        files = [Path(f) for f in look_at(source, _given(known))["files"]]
        sha256, _ = content_of(files)
        slide_id = f"S{self._hash(sha256)[:16]}"
        patient = None if known.patient_id is None else f"P{self._hash(f'patient {known.patient_id}')[:12]}"
        linked = {
            name: self._link_beside(slide_id, name, Path(value)) if value != NONE else NONE
            for name in ("spots", "regions", "features")
            if (value := getattr(known, name)) is not None
        }
        scan = self._link_scan(slide_id, source.path.absolute(), files)
        self._remember({"slide_id": slide_id, "file": str(source.path.absolute()), "patient_id": patient or "",
                        "patient": known.patient_id or ""})  # fmt: skip
        kept: dict[str, Any] = {name: getattr(known, name) for name in _KEPT if getattr(known, name) is not None}
        kept |= {"slide_id": slide_id, "patient_id": patient, **linked}
        return replace(entry, scan=str(scan), known=Known.model_construct(**kept)), tuple(sorted(known.more))

    def _hash(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def _read_secret(self) -> bytes:
        path = self.folder / "secret"
        if not path.exists():
            with atomic_file(path) as draft:
                draft.touch(mode=0o600)
                draft.write_text(secrets.token_hex(32))
        try:
            return bytes.fromhex(path.read_text())
        except ValueError as e:
            raise StorageError(f"{path}: is no secret of pseudonyms; restore it from a backup") from e

    def _link_scan(self, slide_id: str, scan: Path, files: list[Path]) -> Path:
        """Link a scan and, where it has several files, all of them."""
        link = self.folder / "files" / f"{slide_id}{scan.name.removeprefix(name_without_suffix(scan.name)).lower()}"
        if len(files) == 1:
            return _link(link, scan)
        if scan.suffix.lower() == ".mrxs":
            _link(self.folder / "files" / slide_id, scan.with_suffix(""))
            return _link(link, scan)
        if all(f.parent == scan.parent and f.suffix == scan.suffix for f in files) and scan.suffix.lower() in (
            ".dcm",
            "",
        ):
            folder = self.folder / "files" / slide_id
            folder.mkdir(mode=0o700, exist_ok=True)
            links = {f: folder / f"{i:04d}.dcm" for i, f in enumerate(sorted(files))}
            return [_link(links[f], f) for f in sorted(files, key=lambda f: f == scan)][-1]
        raise SlideError(
            f"{scan.name}: consists of {len(files)} files that name each other; convert it to one file to pseudonymize it"
        )

    def _link_beside(self, slide_id: str, what: str, path: Path) -> str:
        """Link measured spots, regions or features under names that their readers know."""
        path = path.expanduser().absolute()
        if what != "spots":
            return str(_link(self.folder / "files" / f"{slide_id}-{what}{path.suffix}", path))
        found = find_files(path)
        if path.suffix == ".zarr":
            raise SlideError(f"{path.name}: a SpatialData store cannot be linked; export its table as .h5ad")
        if found.form != "her2st":
            return str(_link(self.folder / "files" / f"{slide_id}-spots{path.suffix}", path))
        links = [_link(self.folder / "files" / f"{slide_id}_{name}", file) for name, file in found.files.items()]
        return str(links[0])

    def _remember(self, row: dict[str, str]) -> None:
        """Put a row into key.csv, in place of an earlier one of its slide."""
        path = self.folder / "key.csv"
        rows = [r for r in self.read() if r["slide_id"] != row["slide_id"]]
        with atomic_file(path) as draft:
            draft.touch(mode=0o600)
            with draft.open("w", newline="", encoding="utf-8") as f:
                writer = csv.DictWriter(f, COLUMNS)
                writer.writeheader()
                writer.writerows([*rows, row])

    def read(self) -> list[dict[str, str]]:
        """Return the rows of the key, by column."""
        path = self.folder / "key.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ManifestError(f"{path}: is no key of pseudonyms; restore it from a backup")
            return list(reader)


def _given(known: Known) -> float | Mpp | None:
    mpp: Any = known.mpp
    return None if isinstance(mpp, str) else mpp


def _link(link: Path, target: Path) -> Path:
    """Make or replace a link."""
    draft = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    draft.symlink_to(target)
    os.replace(draft, link)
    return link
