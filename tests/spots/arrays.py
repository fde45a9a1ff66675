"""Visium folders of a drawn array, at any scale and angle."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse


def places_of(rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Rows and columns of a Visium array: every other place, as on a chess board."""
    return np.array([(r, c) for r in range(rows) for c in range(columns) if (r + c) % 2 == 0])


def place(
    places: npt.NDArray[np.int64], mpp: float, angle: float = 0.0, mirrored: bool = False
) -> npt.NDArray[np.float64]:
    """Pixels x, y of places: 100 µm from each to its neighbours."""
    xy_um = np.column_stack([places[:, 1] * 50.0, places[:, 0] * 50.0 * math.sqrt(3)])
    if mirrored:
        xy_um[:, 0] *= -1
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    xy_px = (xy_um @ turn) / mpp
    return np.asarray(xy_px - xy_px.min(axis=0) + 40)


def write_array(
    outs: Path,
    places: npt.NDArray[np.int64],
    xy_px: npt.NDArray[np.float64],
    diameter_px: float | None = None,
    genes: tuple[str, ...] = ("EPCAM", "VIM"),
) -> Path:
    """Space Ranger's folder: positions, scale factors and a matrix of counts, all spots in tissue."""
    (outs / "spatial").mkdir(parents=True, exist_ok=True)
    barcodes = [f"B{n:05d}-1" for n in range(len(places))]
    pd.DataFrame(
        {
            "barcode": barcodes, "in_tissue": 1, "array_row": places[:, 0], "array_col": places[:, 1],
            "pxl_row_in_fullres": xy_px[:, 1], "pxl_col_in_fullres": xy_px[:, 0],
        }
    ).to_csv(outs / "spatial" / "tissue_positions_list.csv", index=False, header=False)  # fmt: skip
    scales = {} if diameter_px is None else {"spot_diameter_fullres": diameter_px}
    (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))
    counts = sparse.csr_matrix(np.arange(1, len(places) * len(genes) + 1).reshape(len(places), len(genes)) % 7 + 1)
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "w") as f:
        matrix = f.create_group("matrix")
        for name, values in (("data", counts.data), ("indices", counts.indices), ("indptr", counts.indptr)):
            matrix[name] = values
        matrix["shape"] = counts.shape[::-1]
        matrix["barcodes"] = np.array(barcodes, "S")
        matrix["features/name"] = np.array(genes, "S")
        matrix["features/feature_type"] = np.array(["Gene Expression"] * len(genes), "S")
    return outs
