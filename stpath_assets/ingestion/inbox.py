"""Lists the inbox: the scans of its folders, each with a digest that changes when the file or what is known of it does."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from stpath_assets.errors import SettingsError, SlideError
from stpath_assets.ingestion.files import Location, Seen, location, look_at
from stpath_assets.ingestion.finding import find_scans
from stpath_assets.ingestion.known import Entry
from stpath_assets.settings import Settings
from stpath_assets.slides.registered import CODE_VERSION
from stpath_assets.slides.source import Source, is_url


@dataclass(frozen=True)
class Arrival:
    """A scan in the inbox as it is now. `refused`: why its sidecar cannot be used, if so."""

    entry: Entry
    seen: Seen
    refused: str = ""

    @property
    def digest(self) -> str:
        """What a registration depends on: the file's size, time and version, what is known of it, and the version of the code."""
        said = self.refused or self.entry.known.model_dump_json(exclude_none=True)
        version = f" {self.seen.version}" if self.seen.version else ""
        text = f"{self.seen.size_bytes} {self.seen.modified_ns}{version} {CODE_VERSION} {said}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class Inbox:
    """What the inbox holds: scans, the number of other files, and one line for each thing that cannot be read."""

    arrivals: list[Arrival] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)


def inbox_folders(settings: Settings) -> list[Location]:
    """Return the folders that are watched. Raises `SettingsError` for a URL with a secret."""
    if settings.inbox is None:
        return [settings.home / "inbox"]
    folders = [part.strip() for part in settings.inbox.split(",") if part.strip()]
    try:
        for folder in filter(is_url, folders):
            Source(folder)
    except SlideError as e:
        raise SettingsError(f"inbox: {e}") from e
    return [location(f) if is_url(f) else settings.home / location(f) for f in folders]


def read_inbox(settings: Settings) -> Inbox:
    """Return what the folders of the settings hold now. Raises `SettingsError` for a URL with a secret, or no pattern at all."""
    if not settings.inbox_pattern.replace(",", " ").strip():
        raise SettingsError("inbox_pattern: holds no pattern, so no scan would be taken; unset it to take all")
    return list_inbox(inbox_folders(settings), settings.inbox_pattern)


def list_inbox(folders: Iterable[Location], pattern: str = "*") -> Inbox:
    """Return what the folders hold now. No scan is opened. A folder of this machine that does not exist yet is empty.

    Scans whose path below the folder has none of the patterns, separated by commas, are left out.
    """
    patterns = [part.strip() for part in pattern.split(",") if part.strip()]
    inbox, seen = Inbox(), set[str]()
    for folder in folders:
        if isinstance(folder, Path) and not folder.is_dir():
            continue
        found = find_scans(folder)
        inbox.others += found.others
        inbox.problems += found.problems
        scans = [(entry, "") for entry in found.entries] + [(Entry(s), why) for s, why in found.refused.items()]
        for entry, refused in scans:
            name = entry.scan.removeprefix(f"{folder.absolute()}/")
            if not any(fnmatchcase(name, part) for part in patterns):
                continue
            try:
                now = found.seen.get(entry.scan) or look_at(entry.scan)
            except FileNotFoundError:
                continue  # gone since it was listed, or a link to nothing; if it comes back, it is seen then
            except OSError as e:
                inbox.problems.append(f"{entry.scan}: cannot be read ({e.strerror}); it is left out")
                continue
            if now.size_bytes and entry.scan not in seen:  # an empty file is one whose copy has not begun
                seen.add(entry.scan)
                inbox.arrivals.append(Arrival(entry, now, refused))
    return inbox
