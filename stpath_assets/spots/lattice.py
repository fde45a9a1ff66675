"""The scale of a scan from the lattice of its Visium array, for images that do not say theirs.

    spots.scale_of(Path("outs"))        # µm per pixel of the full-resolution image

Visium's spots form a hexagonal lattice with 100 µm between neighbours. Their places in the array and in the image give the scale.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets.confined import confined
from stpath_assets.errors import SpotsError
from stpath_assets.spots.formats.base import read_numbers, reading
from stpath_assets.spots.formats.visium import read_diameter, read_positions
from stpath_assets.spots.reading import find_files

NEIGHBOURS_UM = 100.0
"""Distance between the centres of neighbours on a Visium array, µm (10x Genomics, Visium Spatial Gene Expression slides)."""

DIAMETER_UM = 65.0
"""What `spot_diameter_fullres` of Space Ranger stands for, µm. It is more than a spot's 55 µm."""

MAX_DIFFERENCE = 0.05
"""Largest relative difference between the lattice's scale and the diameter's, and between the lattice's two directions."""

MAX_OFF_UM = 10.0
"""Largest root mean square distance of spots from the lattice, µm."""

_STEPS_UM = np.array(
    [NEIGHBOURS_UM / 2, NEIGHBOURS_UM * math.sqrt(3) / 2]
)  # of a column and a row; every other place is used


def scale_of(path: Path) -> float:
    """Return the scale of the full-resolution image of a Visium folder, µm per pixel.

    It is the scale of the affine map from places in the array to pixels that fits all spots best, as the square root of the
    area per pixel. Raises `SpotsError` if the spots form no such lattice, or if `spot_diameter_fullres` disagrees by more
    than 5 %.
    """
    return float(confined(_scale_of, str(path), name=str(path), error=SpotsError))


def _scale_of(folder: str) -> float:
    path = Path(folder)
    files = find_files(path).files
    positions = next((file for name, file in files.items() if "tissue_positions" in name), None)
    if positions is None:
        raise SpotsError(f"{path}: has no Visium array, so it gives no scale; give --mpp a number")
    with reading(positions, "a table of spots"):
        table = read_positions(positions)
    places = np.column_stack([read_numbers(table, f"array_{axis}", positions) for axis in ("col", "row")])
    xy_px = np.column_stack([read_numbers(table, f"pxl_{axis}_in_fullres", positions) for axis in ("col", "row")])
    if (places.sum(axis=1) % 2).any():
        raise SpotsError(
            f"{positions}: is not Visium's array of 100 µm (Visium HD?), so it gives no scale; give --mpp a number"
        )
    mpp = _fit(places * _STEPS_UM, xy_px, positions)
    diameter_px = read_diameter(files)
    if diameter_px is not None and abs(DIAMETER_UM / diameter_px - mpp) > MAX_DIFFERENCE * mpp:
        raise SpotsError(
            f"{positions}: the spots' distances give {mpp:.4g} µm per pixel, but their diameter gives "
            f"{DIAMETER_UM / diameter_px:.4g} ({DIAMETER_UM:g} µm are {diameter_px:.5g} pixels); check that both files belong to "
            "this image, or give --mpp a number"
        )
    return mpp


def _fit(xy_um: np.ndarray, xy_px: np.ndarray, file: Path) -> float:
    """Return µm per pixel of the affine map that takes places (N, 2) in µm to pixels (N, 2)."""
    known = np.column_stack([xy_um, np.ones(len(xy_um))])
    if np.linalg.matrix_rank(known) < 3:
        raise SpotsError(f"{file}: too few spots to give a scale; give --mpp a number")
    found, *_ = np.linalg.lstsq(known, xy_px, rcond=None)
    longer, shorter = np.linalg.svd(found[:2], compute_uv=False)
    mpp = 1 / math.sqrt(longer * shorter) if shorter > 0 else math.inf
    off_um = mpp * math.sqrt(((known @ found - xy_px) ** 2).sum(axis=1).mean())
    if not (off_um <= MAX_OFF_UM and longer <= (1 + MAX_DIFFERENCE) * shorter):
        raise SpotsError(
            f"{file}: the spots do not lie on a lattice of {NEIGHBOURS_UM:g} µm in the image, so they give no scale; "
            "check the file, or give --mpp a number"
        )
    return mpp


def pitch_of(xy: npt.NDArray[np.float64]) -> float:
    """Return the median distance of spots (N, 2) from their nearest neighbours, in the unit of their places; 0 for one spot."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(xy).query(xy, 2)[0][:, 1])) if len(xy) > 1 else 0.0
