"""Feature files in TRIDENT's HDF5 layout, written for other tools and imported from them.

Opening and writing is in `files`; what an imported file must hold is checked in `imported`.
"""

from stpath_assets.features.trident.files import check, read, write

__all__ = ["check", "read", "write"]
