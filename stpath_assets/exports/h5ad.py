"""Writes a prediction as .h5ad, for scanpy and similar tools."""

from pathlib import Path
from typing import TYPE_CHECKING

from stpath_assets.errors import StorageError
from stpath_assets.exports.formats import Wanted, chosen
from stpath_assets.settings import Settings
from stpath_assets.storage import atomic_file

if TYPE_CHECKING:
    import anndata


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write a slide's stored prediction."""
    write_h5ad(chosen(settings, wanted), path)


def write_h5ad(prediction: "anndata.AnnData", path: Path) -> Path:
    """Write an AnnData as .h5ad. The file appears only when complete. Raises `StorageError` if it cannot be written."""
    if path.suffix != ".h5ad":
        raise StorageError(f"{path}: an AnnData file ends in .h5ad; name it so")
    with atomic_file(path) as draft:
        prediction.write_h5ad(draft, compression="gzip")
    return path
