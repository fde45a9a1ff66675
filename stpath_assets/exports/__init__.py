"""Exports of one slide for other tools: `formats` lists them, and each has a module with its function `write`.

They read the lake and the scan and write one file or folder that was named, complete or not at all (`destination`). `annotated`
has a slide's prediction as an AnnData, which most of them start from.
"""

from stpath_assets.exports.annotated import add_reliability, prediction_of
from stpath_assets.exports.formats import FORMATS, Wanted, export, format_of
from stpath_assets.exports.h5ad import write_h5ad

__all__ = ["FORMATS", "Wanted", "add_reliability", "export", "format_of", "prediction_of", "write_h5ad"]
