"""Reads bins of Visium HD, `square_008um` of Space Ranger's `binned_outputs`, summed over squares of a tile's size."""

import json
from pathlib import Path

import numpy as np

from stpath_assets.spots.formats import binning
from stpath_assets.spots.formats.base import (
    Measured,
    left_out,
    match_places,
    read_column,
    read_numbers,
    reading,
    refuse_twice,
)
from stpath_assets.spots.formats.tenx import feature_matrix
from stpath_assets.spots.formats.visium import read_positions


def read_visium_hd(files: dict[str, Path]) -> Measured:
    """Read the bins in tissue, and sum them over squares of 112 µm of which at least half are bins in tissue.

    Space Ranger's full-resolution image is the scan's level 0; `scalefactors_json.json` has its µm per pixel and the bins' side.
    """
    barcodes, genes, counts = feature_matrix(files)
    path = next(path for name, path in files.items() if "tissue_positions" in name)
    with reading(path, "a table of bins"):
        table = read_positions(path)
        placed = read_column(table, "barcode", path).to_pylist()
    y_px, x_px = (read_numbers(table, f"pxl_{axis}_in_fullres", path) for axis in ("row", "col"))
    refuse_twice(placed, path, "barcode")
    rows, at, notes = match_places(barcodes, placed, read_numbers(table, "in_tissue", path) == 1, "in tissue")
    scale = next(path for name, path in files.items() if name.endswith(".json"))
    with reading(scale, "scale factors of Visium HD"):
        said = json.loads(scale.read_text("utf-8"))
        side_px = binning.side_px(float(said["microns_per_pixel"]))
        full = (binning.SIDE_UM / float(said["bin_size_um"])) ** 2
    xy_px = np.column_stack([x_px, y_px])[at]
    ids, centres, summed, lost = binning.sum_squares(xy_px, counts[rows], side_px, int(np.ceil(full / 2)))
    notes = [
        f"{len(rows)} bins of {said['bin_size_um']:g} µm are summed over {len(ids)} squares of {binning.SIDE_UM:g} µm",
        *notes,
        *left_out(lost, "in squares of which less than half are bins in tissue"),
    ]
    return Measured(ids, centres, genes, summed, notes, side_px)
