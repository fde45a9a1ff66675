"""The catalog: SQL queries across all slides.

The last stage of the data flow. It reads every table and writes none. `views` has the computed views and macros, `reference`
their documentation, `query` runs a statement that `guard` lets pass in the `sandbox`, `names` finds what a misspelt name meant,
and `frames` is the catalog in a notebook.
"""

import sys
from pathlib import Path
from types import ModuleType

from stpath_assets.catalog.frames import Catalog, open_catalog
from stpath_assets.catalog.query import attach_lines, query

__all__ = ["Catalog", "attach_lines", "open_catalog", "query"]


class _Module(ModuleType):
    """This module, made callable: `stpath_assets.catalog()` opens the catalog."""

    def __call__(self, home: str | Path | None = None, *, at: str | None = None) -> Catalog:
        """Open the catalog of a data root; see `open_catalog`."""
        return open_catalog(home, at=at)


# A submodule hides any function of the same name in its package, so the module itself is the function.
sys.modules[__name__].__class__ = _Module
