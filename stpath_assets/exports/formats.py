"""The formats of exports: their names, what they are called by, and what writes them. The command line asks here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stpath_assets.errors import ExportError
from stpath_assets.exports import destination
from stpath_assets.exports.annotated import prediction_of
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store

if TYPE_CHECKING:
    import anndata

WHOLE, REFERENCE = "copy", "reference"


@dataclass(frozen=True)
class Wanted:
    """What is exported of a slide: by which model (None: STPath's, or the first), which genes (None: all), and whether the whole
    scan is copied with it, where a format can hold it.
    """

    slide_id: str
    model: str | None = None
    genes: Sequence[str] | None = None
    image: str = REFERENCE


@dataclass(frozen=True)
class Format:
    """A format: endings of its path (none: a folder of any name), and the function `write` of its module here."""

    name: str
    suffixes: tuple[str, ...]
    says: str
    has_image: bool = False

    @property
    def write(self) -> Callable[[Settings, Wanted, Path], None]:
        """Write an export of a slide to a path, complete or not at all."""
        written: Callable[[Settings, Wanted, Path], None] = import_module(f"stpath_assets.exports.{self.name}").write
        return written


FORMATS = {
    f.name: f
    for f in (
        Format("h5ad", (".h5ad",), "an AnnData file"),
        Format("spatialdata", (".zarr",), "a SpatialData store", has_image=True),
        Format("geojson", (".geojson", ".geojson.gz"), "GeoJSON for QuPath"),
        Format("csv", (".csv", ".csv.gz"), "a table"),
        Format("ome", (".ome.tif", ".ome.tiff"), "an OME-TIFF of heat maps"),
        Format("trident", (".h5",), "TRIDENT's file of features"),
        Format("hest", (), "a folder in HEST's layout"),
    )
}


def format_of(path: Path) -> Format:
    """Return the format that a path's ending means. Raises `ExportError` if it means none."""
    for form in FORMATS.values():
        if form.suffixes and path.name.lower().endswith(form.suffixes):
            return form
    raise ExportError(f"{path}: its ending names no format; give --to {', '.join(FORMATS)}")


def export(settings: Settings, wanted: Wanted, form: Format, path: Path, *, force: bool = False) -> None:
    """Write an export of a slide. What is wrong with the path or the slide's name is said before any work.

    Raises `ExportError` for the path, `SlideError` for an unknown slide, `StorageError` if there is nothing to export.
    """
    destination.check(path, form.suffixes, form.says, force)
    if wanted.image == WHOLE and not form.has_image:
        raise ExportError(f"--image copy: {form.name} holds no scan; leave it out")
    Registry(Store.of(settings)).get(wanted.slide_id)
    form.write(settings, wanted, path)


def chosen(settings: Settings, wanted: Wanted) -> "anndata.AnnData":
    """Return a slide's prediction with the wanted genes, in their order. Raises `ExportError` for genes that it does not have."""
    found = prediction_of(settings, wanted.slide_id, wanted.model)
    if wanted.genes is None:
        return found
    if missing := [gene for gene in wanted.genes if gene not in set(found.var_names)]:
        raise ExportError(
            f"{wanted.slide_id}: {', '.join(missing[:10])}: not among its {found.n_vars} predicted genes; leave them out"
        )
    return found[:, list(wanted.genes)].copy()
