"""From files to registered slides: what is known of each scan, and which files of a folder are scans.

`known` holds what a manifest's row or a sidecar says, `manifest` reads both, `finding` walks a folder, `adding` registers.
"""

from stpath_assets.ingestion.adding import Added, add_entries, preview
from stpath_assets.ingestion.finding import Found, find_scans
from stpath_assets.ingestion.known import Entry, Known
from stpath_assets.ingestion.manifest import MANIFEST, Manifest, read_manifest, read_sidecar, sidecars_of

__all__ = [
    "MANIFEST",
    "Added",
    "Entry",
    "Found",
    "Known",
    "Manifest",
    "add_entries",
    "find_scans",
    "preview",
    "read_manifest",
    "read_sidecar",
    "sidecars_of",
]
