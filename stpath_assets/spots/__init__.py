"""Spots: measured expression as an input, raw counts of spots whose centres are known on the scan.

`formats` reads the file formats. `lattice` derives a scan's scale from Visium's array. `reading` detects the format and refuses
data that cannot be compared with a prediction. Pairing with tiles and scores belong in `evaluation`.
"""

from stpath_assets.spots.lattice import scale_of
from stpath_assets.spots.reading import (
    CODE_VERSION,
    KNOWN_FORMS,
    Spots,
    check_inside,
    find_files,
    read_spots,
    spots_fingerprint,
)
from stpath_assets.spots.storing import (
    Depth,
    check_spots,
    read_depth,
    read_stored,
    require_path,
    spots_from,
    store_spots,
)

__all__ = [
    "CODE_VERSION",
    "KNOWN_FORMS",
    "Depth",
    "Spots",
    "check_inside",
    "check_spots",
    "read_depth",
    "find_files",
    "read_spots",
    "read_stored",
    "require_path",
    "scale_of",
    "spots_fingerprint",
    "spots_from",
    "store_spots",
]
