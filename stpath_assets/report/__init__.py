"""Reports as one self-contained HTML file each: of the cohort, and of a slide. They can be mailed, and need no network.

`content` asks the catalog, `templates/` lay it out (Jinja2). Nothing is computed here that the catalog does not have.
"""

from stpath_assets.report.writing import write_cohort, write_slide

__all__ = ["write_cohort", "write_slide"]
