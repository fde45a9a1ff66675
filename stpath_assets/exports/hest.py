"""Writes a slide as a folder in the layout of HEST-1k: `st/`, `patches/`, `metadata/`, `thumbnails/`, `wsis/`.

HEST's `st/` holds measured counts. So does ours if the slide has measured spots; the prediction then lies in `predicted/`. The
scan is linked, not copied.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from stpath_assets.exports.annotated import measured_of
from stpath_assets.exports.destination import atomic_folder
from stpath_assets.exports.formats import Wanted, chosen
from stpath_assets.progress import track
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.slides.source import is_url
from stpath_assets.spots import read_spots
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import Tiles

_BATCH = 64
_THUMBNAIL_PX = 1000


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write the folder: counts or prediction as .h5ad, the tiles' pixels, and what is known of the slide."""
    store, slide_id = Store.of(settings), wanted.slide_id
    row, found = Registry(store).get(slide_id), chosen(settings, wanted)
    with atomic_folder(path) as draft:
        for name in ("st", "patches", "metadata", "thumbnails", "wsis"):
            (draft / name).mkdir(parents=True)
        if row.spots_uri is None:
            found.write_h5ad(draft / "st" / f"{slide_id}.h5ad", compression="gzip")
        else:
            (draft / "predicted").mkdir()
            found.write_h5ad(draft / "predicted" / f"{slide_id}.h5ad", compression="gzip")
            measured_of(read_spots(Path(row.spots_uri))).write_h5ad(
                draft / "st" / f"{slide_id}.h5ad", compression="gzip"
            )
        with row.open() as slide:
            tiles = Tiles(slide, store.read(TILE_GRIDS.name, slide_id))
            _write_patches(draft / "patches" / f"{slide_id}.h5", tiles)
            Image.fromarray(slide.thumbnail(_THUMBNAIL_PX)).save(
                draft / "thumbnails" / f"{slide_id}_downscaled_fullres.jpeg", quality=90
            )
        if not is_url(row.uri):
            (draft / "wsis" / f"{slide_id}{Path(row.uri).suffix}").symlink_to(row.uri)
        (draft / "metadata" / f"{slide_id}.json").write_text(json.dumps(_metadata(row, len(tiles)), indent=1))


def _write_patches(path: Path, tiles: Tiles) -> None:
    """Write `img` (N, 224, 224, 3) uint8, `coords` (N, 2) top-left corners, level-0 pixels, and `barcode` (N, 1)."""
    n, px = len(tiles), tiles.tile_px
    corners = np.stack([tiles.table["x_px"].to_numpy(), tiles.table["y_px"].to_numpy()], axis=1)
    with h5py.File(path, "w") as file:
        images = file.create_dataset("img", (n, px, px, 3), np.uint8, chunks=(1, px, px, 3))
        done = 0
        for batch in track(tiles.batches(_BATCH), f"{tiles.slide_id}: patches", n, len):
            images[done : done + len(batch)] = batch
            done += len(batch)
        file["coords"] = np.rint(corners).astype(np.int64)
        file["barcode"] = np.array([[i.encode()] for i in tiles.tile_ids])
        images.attrs["patch_size"], images.attrs["mpp"] = px, tiles.mpp


def _metadata(row: Registered, tiles: int) -> dict[str, Any]:
    return {
        "id": row.slide_id,
        "organ": row.organ,
        "st_technology": row.tech,
        "patient": row.patient_id,
        "pixel_size_um_estimated": row.mpp,
        "fullres_px_width": row.width_px,
        "fullres_px_height": row.height_px,
        "magnification": None if row.objective_power is None else f"{row.objective_power:g}x",
        "patches_in_tissue": tiles,
        "sha256": row.sha256,
    }
