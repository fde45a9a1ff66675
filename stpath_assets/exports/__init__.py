"""Exports of one slide to files for other tools, one module per format: `h5ad`, `trident`."""

from stpath_assets.exports.h5ad import write_h5ad
from stpath_assets.exports.trident import write_trident

__all__ = ["write_h5ad", "write_trident"]
