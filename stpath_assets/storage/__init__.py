"""The lake: storage of all tables of a data root.

`Store` reads and writes tables, and `atomic_file` writes any other file. `home` knows the paths, `lake` connects to DuckLake,
`schema` creates its tables and views, `by_gene` writes and reads Parquet files, `maintenance` merges and removes them.
"""

from stpath_assets.storage.by_gene import ByGene
from stpath_assets.storage.files import atomic_file
from stpath_assets.storage.home import Home
from stpath_assets.storage.part import SLIDE_ID
from stpath_assets.storage.store import Outcome, Store

__all__ = ["SLIDE_ID", "ByGene", "Home", "Outcome", "Store", "atomic_file"]
