"""The catalog: SQL queries across all slides.

The last stage of the data flow. It reads every table and writes none.
"""

from stpath_assets.catalog.query import attach_lines, query

__all__ = ["attach_lines", "query"]
