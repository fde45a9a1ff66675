"""The catalog: one place to ask across all slides, by SQL, and exports of single slides to other tools' forms.

Last stage of the way of the data: reads every table, writes none.
"""

from stpath_assets.catalog.catalog import build, query, view_sql

__all__ = ["build", "query", "view_sql"]
