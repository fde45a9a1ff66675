"""Reads bins of Visium HD, `square_008um` of Space Ranger's `binned_outputs`, summed over squares of a tile's size."""

import json
from pathlib import Path

import numpy as np

from stpath_assets.spots.formats import binning
from stpath_assets.spots.formats.base import Measured, left_out, reading
from stpath_assets.spots.formats.visium import read_placed


def read_visium_hd(files: dict[str, Path]) -> Measured:
    """Read the bins in tissue, and sum them over squares of 112 µm of which at least half are bins in tissue.

    Space Ranger's full-resolution image is the scan's level 0; `scalefactors_json.json` has its µm per pixel and the bins' side.
    """
    bins, xy_px, genes, counts, notes = read_placed(files)
    scale = next(path for name, path in files.items() if name.endswith(".json"))
    with reading(scale, "scale factors of Visium HD"):
        said = json.loads(scale.read_text("utf-8"))
        side_px = binning.side_px(float(said["microns_per_pixel"]))
        full = (binning.SIDE_UM / float(said["bin_size_um"])) ** 2
    ids, centres, summed, lost = binning.sum_squares(xy_px, counts, side_px, int(np.ceil(full / 2)))
    notes = [
        f"{len(bins)} bins of {said['bin_size_um']:g} µm are summed over {len(ids)} squares of {binning.SIDE_UM:g} µm",
        *notes,
        *left_out(lost, "in squares of which less than half are bins in tissue"),
    ]
    return Measured(ids, centres, genes, summed, notes, side_px)
