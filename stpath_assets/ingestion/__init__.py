"""From files to registered slides: what is known of each scan, and which files of a folder are scans.

`known` holds what a manifest's row or a sidecar says, `manifest` reads both, `finding` finds the scans
of a folder, whose files `files` lists, `adding` registers.
For the watched folders, `inbox` lists what is there, `decisions` says what to do about it, and `registering` does it.
"""

from stpath_assets.ingestion.adding import Added, add_entries, preview
from stpath_assets.ingestion.decisions import (
    MAX_TRIES,
    Memory,
    Turns,
    choose_arrivals,
    choose_turns,
    is_time,
    note_asked,
)
from stpath_assets.ingestion.files import Seen, location
from stpath_assets.ingestion.finding import Found, find_scans
from stpath_assets.ingestion.inbox import Arrival, Inbox, inbox_folders, list_inbox, read_inbox
from stpath_assets.ingestion.known import Entry, Known
from stpath_assets.ingestion.manifest import MANIFEST, Manifest, read_manifest, read_sidecar, sidecars_of
from stpath_assets.ingestion.pseudonyms import Pseudonyms
from stpath_assets.ingestion.registering import Quarantined, done_of, forget_gone, read_quarantine, register_arrivals

__all__ = [
    "MANIFEST",
    "MAX_TRIES",
    "Added",
    "Arrival",
    "Entry",
    "Found",
    "Inbox",
    "Known",
    "Manifest",
    "Memory",
    "Pseudonyms",
    "Quarantined",
    "Seen",
    "Turns",
    "add_entries",
    "choose_arrivals",
    "choose_turns",
    "done_of",
    "find_scans",
    "forget_gone",
    "inbox_folders",
    "is_time",
    "list_inbox",
    "location",
    "note_asked",
    "preview",
    "read_inbox",
    "read_manifest",
    "read_quarantine",
    "read_sidecar",
    "register_arrivals",
    "sidecars_of",
]
