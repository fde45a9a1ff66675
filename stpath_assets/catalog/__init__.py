"""The catalog: one place to ask across all slides, by SQL.

Last stage of the way of the data: reads every table, writes none.
"""

from stpath_assets.catalog.query import attach_lines, query

__all__ = ["attach_lines", "query"]
