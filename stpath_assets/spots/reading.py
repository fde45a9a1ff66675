"""Reads measured expression: raw counts of spots whose centres are known in a scan's level-0 pixels.

Detects the format of a path, reads it (`formats`), and refuses data that cannot be compared with a prediction.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from stpath_assets.confined import confined_arrays, hand_over
from stpath_assets.errors import SpotsError, StorageError
from stpath_assets.spots.formats.base import Measured, first_no_count, refuse_twice
from stpath_assets.spots.formats.h5ad import read_h5ad, read_spatialdata
from stpath_assets.spots.formats.her2st import read_her2st
from stpath_assets.spots.formats.visium import read_visium
from stpath_assets.spots.formats.visium_hd import read_visium_hd
from stpath_assets.spots.formats.xenium import read_xenium
from stpath_assets.vocabulary.matching import ENSEMBL_ID
from stpath_assets.weights import hashes

CODE_VERSION = "2"
"""Raised when the same files give other rows of `spot_expression`."""

KNOWN_FORMS = (
    "<name>_counts.tsv or .tsv.gz with <name>_selection.tsv next to it, an .h5ad or the .zarr of a SpatialData "
    "store with obsm['spatial'], "
    "or a Visium, Visium HD or Xenium folder (outs of Space Ranger, or of Xenium with NAME_imagealignment.csv)"
)
_MATRIX = "filtered_feature_bc_matrix"
_MATRIX_FILES = tuple(f"{_MATRIX}/{name}" for name in ("barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz"))
_POSITIONS = tuple(
    f"spatial/{name}" for name in ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")
)
_SCALE_FACTORS = "spatial/scalefactors_json.json"
_HD_BINS = "square_008um"
_XENIUM_MATRIX, _XENIUM = "cell_feature_matrix.h5", "experiment.xenium"
_HOLDS_POSITIONS = re.compile("selection|tissue_positions")


@dataclass(frozen=True)
class Spots:
    """Measured expression of N spots and G genes.

    `spot_ids` are unique and as in the data. `xy_px` (N, 2) float64 are spot centres x, y in level-0 pixels. `genes` are
    symbols in ascending order, without duplicates. `counts` (N, G) int32 are raw counts, sparse by column. `source` is the
    format (`her2st`, `h5ad`, `spatialdata`, `visium`, `visium_hd` or `xenium`). `notes` are lines for the
    user. `spot_diameter_px` is the diameter of a spot, or the side of a square, in level-0 pixels, if the data have it.
    """

    spot_ids: list[str]
    xy_px: npt.NDArray[np.float64]
    genes: list[str]
    counts: "scipy.sparse.csc_matrix"
    source: str
    notes: list[str] = field(default_factory=list)
    spot_diameter_px: float | None = None

    @property
    def depth(self) -> npt.NDArray[np.float64]:
        """The sum of each spot's counts, (N,)."""
        return np.asarray(self.counts.sum(axis=1), np.float64).ravel()


def read_spots(path: Path) -> Spots:
    """Read measured expression in one of the formats of `KNOWN_FORMS`, in a child process (`confined`).

    Spots without counts, without a position, not selected or not in tissue are left out, with a note. If several columns have one
    gene symbol (10x features with different Ensembl ids), the one with the most counts is kept, with a note. Raises `SpotsError`,
    one line with the file, what is wrong and what to do.
    """
    said, arrays = confined_arrays(_read_into, str(path), name=str(path), error=SpotsError)
    shape = len(said["spot_ids"]), len(said["genes"])
    counts = scipy.sparse.csc_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape)
    return Spots(xy_px=arrays["xy_px"], counts=counts, **said)


def _read_into(path: str, folder: str) -> dict[str, Any]:
    """Read the files, and hand over what they hold. Runs in the child."""
    spots = _read_here(Path(path))
    counts = spots.counts
    hand_over(folder, xy_px=spots.xy_px, data=counts.data, indices=counts.indices, indptr=counts.indptr)
    return {
        "spot_ids": spots.spot_ids,
        "genes": spots.genes,
        "source": spots.source,
        "notes": spots.notes,
        "spot_diameter_px": spots.spot_diameter_px,
    }


def _read_here(path: Path) -> Spots:
    found = find_files(path)
    measured = found.read(found.files)
    file = next(iter(found.files.values()))
    _check_spots(measured, file)
    _check_positions(measured, next((f for name, f in found.files.items() if _HOLDS_POSITIONS.search(name)), file))
    _check_counts(measured, file)
    columns, notes = _one_column_a_gene(measured, file)
    about = replace(measured, counts=scipy.sparse.csr_matrix((0, 0)))
    # One form of the matrix after the other: each is as large as all the rest.
    held = measured.counts
    del measured
    counts = scipy.sparse.csc_matrix(held, dtype=np.int32)
    del held
    counts = counts[:, columns]
    counts.sum_duplicates()
    counts.eliminate_zeros()
    genes, notes = [about.genes[i] for i in columns], [*about.notes, *notes]
    return Spots(about.spot_ids, about.xy_px, genes, counts, found.form, notes, about.spot_diameter_px)


def spots_fingerprint(path: Path) -> str:
    """Return the SHA-256, hexadecimal, of the names and contents of all files that `read_spots` reads for `path`.

    Names are relative to the sample (`counts.tsv.gz`, `spatial/tissue_positions.csv`), so moving or renaming a sample keeps its
    fingerprint. Raises `SpotsError` if a file is missing or cannot be read.
    """
    found = find_files(Path(path))
    digest = hashlib.sha256(found.form.encode())
    for name, file in sorted(found.files.items()):
        try:
            digest.update(f"\n{name}\t{hashes.sha256_of(file)}".encode())
        except StorageError as e:
            raise SpotsError(str(e)) from e
    return digest.hexdigest()


def check_inside(spots: Spots, width_px: int, height_px: int, slide_id: str) -> None:
    """Raise `SpotsError` if the centre of any spot lies outside a slide of this size, level-0 pixels."""
    outside = ((spots.xy_px < 0) | (spots.xy_px > (width_px, height_px))).any(axis=1)
    if not outside.any():
        return
    first = int(outside.argmax())
    x, y = spots.xy_px[first].tolist()
    raise SpotsError(
        f"{slide_id}: {outside.sum()} of {len(spots.spot_ids)} spots lie outside the slide, {width_px} x {height_px} px; "
        f"the first, {spots.spot_ids[first]}, at ({x:.10g}, {y:.10g}); check that they were measured on "
        "this scan and that their positions are its level-0 pixels, not those of a smaller image"
    )


@dataclass(frozen=True)
class FoundFiles:
    """A path of a known format. `files` are all files that are read, by name in the sample, the counts first."""

    form: str
    files: dict[str, Path]
    read: Callable[[dict[str, Path]], Measured]


def find_files(path: Path) -> FoundFiles:
    """Return the format of a path and its files. Opens none of them."""
    if path.is_dir() and path.suffix == ".zarr":
        return _find_spatialdata(path)
    if path.is_dir():
        return _find_xenium(path) or _find_visium_hd(path) or _find_visium(path)
    if not path.is_file():
        raise SpotsError(f"{path}: no such file or folder; measured expression is {KNOWN_FORMS}")
    if path.suffix == ".h5ad":
        return FoundFiles("h5ad", {"h5ad": path}, read_h5ad)
    name = re.fullmatch(r"(.+)_(counts\.tsv(?:\.gz)?)", path.name)
    if name is None:
        raise SpotsError(f"{path}: unknown format of measured expression; give {KNOWN_FORMS}")
    selection = path.with_name(f"{name[1]}_selection.tsv")
    if not selection.is_file():
        raise SpotsError(f"{path}: the spots' positions are missing; put {selection.name} next to it")
    return FoundFiles("her2st", {name[2]: path, "selection.tsv": selection}, read_her2st)


def _find_spatialdata(store: Path) -> FoundFiles:
    """Return the files of the one table of a SpatialData store."""
    described = (".zattrs", "zarr.json")
    tables = sorted(t for t in (store / "tables").glob("*") if any((t / name).is_file() for name in described))
    if len(tables) != 1:
        named = f" ({', '.join(t.name for t in tables)})" if tables else ""
        raise SpotsError(
            f"{store}: has {len(tables)} tables{named}, and one is needed; write the measured one to a store of its own"
        )
    (table,) = tables
    linked = next((p for p in (store, store / "tables", table, *table.rglob("*")) if p.is_symlink()), None)
    if linked is not None:
        raise SpotsError(f"{linked}: is a link, which is refused; write all data into the store")
    first = next(table / name for name in described if (table / name).is_file())
    others = {str(p.relative_to(table)): p for p in sorted(table.rglob("*")) if p.is_file() and p != first}
    return FoundFiles("spatialdata", {first.name: first, **others}, read_spatialdata)


def _find_xenium(folder: Path) -> FoundFiles | None:
    """Return the files of a Xenium run in `folder` or in its `outs`, or None if it is no such folder."""
    for outs in (folder, folder / "outs"):
        if not (outs / _XENIUM_MATRIX).is_file():
            continue
        cells = next((name for name in ("cells.parquet", "cells.csv.gz") if (outs / name).is_file()), None)
        if cells is None or not (outs / _XENIUM).is_file():
            missing = "cells.parquet" if cells is None else _XENIUM
            raise SpotsError(f"{outs}: {missing} is missing; give Xenium's whole output folder")
        found = (f for place in (outs, outs.parent) for f in place.glob("*imagealignment.csv"))
        aligned = sorted(found, key=lambda file: file.name)
        if len(aligned) != 1:
            named = f" ({', '.join(f.name for f in aligned)})" if aligned else ""
            raise SpotsError(
                f"{outs}: {len(aligned)} alignments of an H&E scan{named}, and one is needed to know where cells lie on it; "
                "put NAME_he_imagealignment.csv there (Xenium Explorer exports it)"
            )
        files = {_XENIUM_MATRIX: outs / _XENIUM_MATRIX, cells: outs / cells, _XENIUM: outs / _XENIUM}
        return FoundFiles("xenium", files | {"imagealignment.csv": aligned[0]}, read_xenium)
    return None


def _find_visium_hd(folder: Path) -> FoundFiles | None:
    """Return the files of bins of 8 µm of Visium HD, or None if it is no such folder. `folder` is Space Ranger's run, its `outs`,
    `binned_outputs` or the folder of the bins, which may also be those of 16 µm.
    """
    inside = ("", "binned_outputs/", "outs/binned_outputs/")
    for place in (folder, *(folder / f"{part}{_HD_BINS}" for part in inside)):
        if not place.name.startswith("square_") or not (place / f"{_MATRIX}.h5").is_file():
            continue
        positions = next((name for name in _POSITIONS if (place / name).is_file()), None)
        if positions is None or not (place / _SCALE_FACTORS).is_file():
            raise SpotsError(f"{place}: {'positions' if positions is None else _SCALE_FACTORS} of the bins are missing")
        names = (f"{_MATRIX}.h5", positions, _SCALE_FACTORS)
        return FoundFiles("visium_hd", {name: place / name for name in names}, read_visium_hd)
    return None


def _find_visium(folder: Path) -> FoundFiles:
    """Return the files of a Space Ranger run, in `folder` or in its `outs`."""
    for outs in (folder, folder / "outs"):
        matrices = ((f"{_MATRIX}.h5",), _MATRIX_FILES)
        matrix = next((m for m in matrices if all((outs / name).is_file() for name in m)), None)
        if matrix is None:
            continue
        positions = next((name for name in _POSITIONS if (outs / name).is_file()), None)
        if positions is None:
            raise SpotsError(f"{outs}: the spots' positions are missing; put {_POSITIONS[0]} there")
        scale = (_SCALE_FACTORS,) if (outs / _SCALE_FACTORS).is_file() else ()
        return FoundFiles("visium", {name: outs / name for name in (*matrix, positions, *scale)}, read_visium)
    raise SpotsError(
        f"{folder}: is not a Visium folder, it has neither {_MATRIX}.h5 nor all of {', '.join(_MATRIX_FILES)}; "
        f"measured expression is {KNOWN_FORMS}"
    )


def _check_spots(measured: Measured, file: Path) -> None:
    if not measured.spot_ids or not measured.genes:
        said = "".join(f" ({note})" for note in measured.notes)
        raise SpotsError(f"{file}: no spot or gene remains{said}; check that counts and positions belong to one sample")
    refuse_twice(measured.spot_ids, file, "spot")


def _check_positions(measured: Measured, file: Path) -> None:
    lost = ~np.isfinite(measured.xy_px).all(axis=1)
    if lost.any():
        raise SpotsError(
            f"{file}: {lost.sum()} of {len(measured.spot_ids)} spots with counts have no position, the first is "
            f"{measured.spot_ids[lost.argmax()]}; fill in its level-0 pixels or remove it"
        )


def _check_counts(measured: Measured, file: Path) -> None:
    where = f" in {measured.held_in}" if measured.held_in else ""
    put = "put raw counts into layers['counts']" if measured.held_in else "give the raw counts"
    counts = measured.counts
    first = first_no_count(counts.data)
    if first is not None:
        spot = measured.spot_ids[int(np.searchsorted(counts.indptr, first, side="right")) - 1]
        gene = measured.genes[counts.indices[first]]
        raise SpotsError(
            f"{file}: these are not raw counts{where}: gene {gene} has {counts.data[first]:g} in spot {spot}, "
            f"and counts are whole numbers from 0; {put}"
        )
    if not counts.data.any():
        raise SpotsError(f"{file}: all counts{where} are 0; {put}")


def _one_column_a_gene(measured: Measured, file: Path) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Sort columns by symbol, keeping for duplicate symbols the column with the most counts; return them with notes."""
    symbols = np.array(measured.genes)
    if (symbols == "").any():
        raise SpotsError(f"{file}: gene {int((symbols == '').argmax()) + 1} has no symbol; name it or remove it")
    totals = np.asarray(measured.counts.sum(axis=0, dtype=np.float64)).ravel()
    order = np.lexsort((-totals, symbols))
    ranked = symbols[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    again = sorted(set(ranked[~first].tolist()))
    notes = []
    if again:
        some = ", ".join(again[:3]) + (", …" if len(again) > 3 else "")
        notes.append(f"symbols of several features, of which the one with most counts is kept: {len(again)} ({some})")
    if all(ENSEMBL_ID.fullmatch(gene) for gene in measured.genes):
        notes.append(
            "genes are named by Ensembl id; they are matched with predicted symbols by the vocabulary of STPath's weights"
        )
    return order[first], notes
