"""Lists the inbox: the scans of its folders, each with a digest that changes when the file or what is known of it does."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stpath_assets.errors import SettingsError
from stpath_assets.ingestion.finding import find_scans
from stpath_assets.ingestion.known import Entry
from stpath_assets.settings import Settings
from stpath_assets.slides.registered import CODE_VERSION
from stpath_assets.slides.source import is_url


@dataclass(frozen=True)
class Arrival:
    """A scan in the inbox as it is now. `refused`: why its sidecar cannot be used, if so."""

    entry: Entry
    size_bytes: int
    modified_ns: int
    refused: str = ""

    @property
    def digest(self) -> str:
        """What a registration depends on: the file's size and time, what is known of it, and the version of the code."""
        said = self.refused or self.entry.known.model_dump_json(exclude_none=True)
        text = f"{self.size_bytes} {self.modified_ns} {CODE_VERSION} {said}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class Inbox:
    """What the inbox holds: scans, the number of other files, and one line for each thing that cannot be read."""

    arrivals: list[Arrival] = field(default_factory=list)
    others: int = 0
    problems: list[str] = field(default_factory=list)


def inbox_folders(settings: Settings) -> list[Path]:
    """Return the folders that are watched. Raises `SettingsError` for a URL."""
    if settings.inbox is None:
        return [settings.home / "inbox"]
    url = next((part for part in settings.inbox.split(",") if is_url(part.strip())), None)
    if url is not None:
        raise SettingsError(f"inbox: {url.strip()} is a URL, and only folders of this machine are watched; mount it")
    return [settings.home / Path(part.strip()).expanduser() for part in settings.inbox.split(",") if part.strip()]


def list_inbox(folders: Iterable[Path]) -> Inbox:
    """Return what the folders hold now. No scan is opened. A folder that does not exist yet is empty."""
    inbox, seen = Inbox(), set[str]()
    for folder in folders:
        if not folder.is_dir():
            continue
        found = find_scans(folder)
        inbox.others += found.others
        inbox.problems += found.problems
        scans = [(entry, "") for entry in found.entries] + [(Entry(s), why) for s, why in found.refused.items()]
        for entry, refused in scans:
            try:
                stat = os.stat(entry.scan)
            except FileNotFoundError:
                continue  # gone since it was listed, or a link to nothing; if it comes back, it is seen then
            except OSError as e:
                inbox.problems.append(f"{entry.scan}: cannot be read ({e.strerror}); it is left out")
                continue
            if stat.st_size and entry.scan not in seen:  # an empty file is one whose copy has not begun
                seen.add(entry.scan)
                inbox.arrivals.append(Arrival(entry, stat.st_size, stat.st_mtime_ns, refused))
    return inbox
