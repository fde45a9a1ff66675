"""Imports: results of other tools, and tables of a lab's own, into the lake.

`reading` reads a file and names the row and column of what is wrong. Each kind has a file: `gene_sets`, `own` (clinical and other
tables), `tiles` (domains and cell types), `bulk`, `predictions`. Each import is one transaction: all of a file, or nothing.
"""

from stpath_assets.imports.bulk import import_bulk
from stpath_assets.imports.gene_sets import import_gene_sets
from stpath_assets.imports.own import import_table, remove_table
from stpath_assets.imports.predictions import import_predictions, remove_predictions
from stpath_assets.imports.tiles import import_cell_types, import_domains

__all__ = [
    "import_bulk",
    "import_cell_types",
    "import_domains",
    "import_gene_sets",
    "import_predictions",
    "import_table",
    "remove_predictions",
    "remove_table",
]
