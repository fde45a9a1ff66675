"""Reads and writes feature files in TRIDENT's HDF5 layout.

`coords` (N, 2) int64 are top-left corners in level-0 pixels, `features` (N, 1536) float32; both carry attributes. Values that
the layout rounds or does not have are written as extra datasets, so that our own files are read back exactly. The checks are
in `imported`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.confined import confined_arrays, hand_over
from stpath_assets.errors import FeatureError, StorageError
from stpath_assets.features.trident.imported import FACTS, NOT_SAID, OURS, Imported, TridentFile
from stpath_assets.slides import Registered
from stpath_assets.storage import atomic_file
from stpath_assets.tiles import GivenTiles, sides_of


def write(
    path: Path,
    row: Registered,
    tiles: pa.Table,
    matrix: npt.NDArray[np.float32],
    facts: Mapping[str, str],
    overlap_px: int = 0,
) -> Path:
    """Write a slide's tiles, a `tile_grids` table, and features (N, D) in its order. The file appears only when complete.

    `facts` are those of the features (`EncoderChoice.facts`). `overlap_px` is the overlap of neighbours, in pixels of the tile as
    the encoder sees it. Raises `StorageError` if the file cannot be written.
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
        # The layout uses magnifications: 10× is 1 µm per pixel.
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
    """Read a slide's feature file, if it has one, and return notes for the user. Raises as `read`."""
    return () if row.features_uri is None else read(row.features_uri, row).tiles.notes


def read(path: str | Path, row: Registered) -> Imported:
    """Read a feature file of a registered slide, our own or another tool's, in a child process (`confined`).

    Raises `FeatureError`, one line, if the file is damaged or of another kind; if its features have another encoder, width or
    number, or are not finite; if its tiles have another size, lie outside the scan or occur twice; or if it belongs to another
    slide.
    """
    name = f"{row.slide_id}: {Path(path).name}"
    said, arrays = confined_arrays(_read_into, str(path), row.__dict__, name=name, error=FeatureError)
    said["tiles"]["notes"] = tuple(said["tiles"]["notes"])
    tiles = GivenTiles(x_px=arrays["x_px"], y_px=arrays["y_px"], **said["tiles"])
    return Imported(tiles, arrays["matrix"], said["sha256"], said["facts"])


def _read_into(path: str, row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Read and check a file, and hand over what it holds. Runs in the child."""
    found = _read_here(Path(path), Registered(**row))
    tiles = dict(found.tiles.__dict__)
    hand_over(folder, matrix=found.matrix, x_px=tiles.pop("x_px"), y_px=tiles.pop("y_px"))
    return {"tiles": tiles, "sha256": found.sha256, "facts": found.facts}


def _read_here(path: Path, row: Registered) -> Imported:
    import h5py

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
