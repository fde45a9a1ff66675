"""Files of features in the HDF5 layout of TRIDENT: written for other tools, and read from them.

`coords` (N, 2) int64 are top-left corners in level-0 pixels, `features` (N, 1536) float32; both carry attributes. What the
layout rounds or has no word for is written beside, so that a file of ours comes back exactly. What is checked is in `imported`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import FeatureError, StorageError
from stpath_assets.features.trident.imported import FACTS, NOT_SAID, OURS, Imported, TridentFile
from stpath_assets.slides import Registered
from stpath_assets.storage import atomic_file
from stpath_assets.tiles import sides_of


def write(
    path: Path,
    row: Registered,
    tiles: pa.Table,
    matrix: npt.NDArray[np.float32],
    facts: Mapping[str, str],
    overlap_px: int = 0,
) -> Path:
    """Writes a slide's tiles, a `tile_grids` table, and features (N, D) in its order; complete or not at all.

    `facts` are those of the features (`EncoderChoice.facts`), `overlap_px` what neighbours share, pixels of the tile as the
    encoder sees it. Raises `StorageError` where the file cannot be written.
    """
    import h5py

    if path.suffix != ".h5":
        raise StorageError(f"{path}: a TRIDENT file ends in .h5; name it so")
    if len(matrix) != tiles.num_rows:
        raise ValueError(f"{len(matrix)} features for {tiles.num_rows} tiles")
    corners = np.stack([tiles["x_px"].to_numpy(), tiles["y_px"].to_numpy()], axis=1)
    with atomic_file(path) as draft, h5py.File(draft, "w") as file:
        coords = file.create_dataset("coords", data=np.rint(corners).astype(np.int64))
        coords.attrs.update(_coords_attributes(path, row, tiles, overlap_px))
        features = file.create_dataset("features", data=np.asarray(matrix, np.float32))
        ours = {f"{OURS}{name}": facts.get(name, NOT_SAID) for name in FACTS}
        features.attrs.update(
            {"name": row.slide_id, "savetodir": str(path.parent), "encoder": facts["encoder"], **ours}
        )
        file.create_dataset("x_px", data=corners[:, 0])
        file.create_dataset("y_px", data=corners[:, 1])
        file.create_dataset("tile_id", data=np.array(tiles["tile_id"].to_pylist(), "S12"))
    return path


def _coords_attributes(path: Path, row: Registered, tiles: pa.Table, overlap_px: int) -> dict[str, Any]:
    tile_px, tile_mpp = (tiles[name][0].as_py() for name in ("tile_px", "mpp"))
    side_px, side_y_px = sides_of(tiles)
    return {
        "patch_size": tile_px,
        "patch_size_level0": round(side_px),
        # The layout counts in magnifications, of which 10 are 1 µm per pixel.
        "level0_magnification": max(1, round(10 / row.mpp)),
        "target_magnification": max(1, round(10 / tile_mpp)),
        "overlap": overlap_px,
        "name": row.slide_id,
        "savetodir": str(path.parent),
        "level0_width": row.width_px,
        "level0_height": row.height_px,
        f"{OURS}slide_sha256": row.sha256,
        f"{OURS}slide_mpp": row.mpp,
        f"{OURS}tile_mpp": tile_mpp,
        f"{OURS}side_px": side_px,
        f"{OURS}side_y_px": side_y_px,
    }


def check(row: Registered) -> tuple[str, ...]:
    """Reads a slide's file of features, if it has one, and returns what a user should know of it. Raises as `read`."""
    return () if row.features_uri is None else read(row.features_uri, row).tiles.notes


def read(path: str | Path, row: Registered) -> Imported:
    """Reads a file of features of a registered slide, ours or another tool's.

    Raises `FeatureError`, one line, for what is no such file or damaged, features of another encoder, width or number, not
    finite, tiles of another size, outside the scan or twice the same, and a file of another slide.
    """
    import h5py

    path = Path(path)
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)  # the same open file: another may be renamed over it meanwhile
            with h5py.File(stream, "r") as file:
                return TridentFile(file, f"{row.slide_id}: {path.name}", row).read(sha256)
    except FeatureError:
        raise
    except FileNotFoundError as e:
        raise FeatureError(f"{row.slide_id}: its features {path} do not exist; check --features") from e
    except Exception as e:  # the parser of damaged files raises anything
        raise FeatureError(
            f"{row.slide_id}: {path.name}: cannot be read as HDF5 with coords and features ({type(e).__name__}); "
            "it is damaged or another kind of file, export it again"
        ) from e
