"""Imports predictions of another tool for a registered slide: tiles by genes with their centres, into `stpath_predictions`.

So a lab's results of DeepSpot, Path2Space or another model stand beside ours, with model and licence. They keep their own tiles,
whose centres are level-0 pixels of the scan.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.confined import confined_arrays, hand_over
from stpath_assets.errors import ImportFileError, describe, one_line
from stpath_assets.imports.reading import Frame, read_frame, to_number
from stpath_assets.prediction.summaries import neighbours, summary_rows
from stpath_assets.slides import Registered, Registry
from stpath_assets.spots.formats.base import refuse_links
from stpath_assets.storage import Store
from stpath_assets.storage.by_gene import ByGene
from stpath_assets.storage.fingerprint import sha256_of_file, start
from stpath_assets.storage.locks import lock
from stpath_assets.tables import IMPORTED_BY_SLIDE, IMPORTED_MODELS, IMPORTED_PREDICTIONS

UNITS = ("log1p", "counts")
_MODEL = re.compile(r"(?!stpath)[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}")
_MAX_LOG1P = 15.0
"""Log1p of three million: a larger value was not logged."""

_LEAST_LOG1P = -5.0
"""A regression may predict a little less than 0."""

_GENES_AT_ONCE = 256
_WAIT_S = 600.0
_PLACES = ("tile_id", "center_x_px", "center_y_px")

_Block = tuple[Sequence[str], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Predicted:
    """Predictions of N tiles and G genes: centres (N, 2) in level-0 pixels, log1p values (N, G), genes in ascending order."""

    tile_ids: list[str]
    centers: npt.NDArray[np.float64]
    genes: list[str]
    values: npt.NDArray[np.float32]

    @property
    def keys(self) -> dict[str, npt.NDArray]:
        """The key columns of the stored part."""
        return {
            "tile_id": np.array(self.tile_ids, object), "center_x_px": self.centers[:, 0], "center_y_px": self.centers[:, 1],
        }  # fmt: skip

    def blocks(self) -> Iterator[_Block]:
        """Yield some genes at a time."""
        for i in range(0, len(self.genes), _GENES_AT_ONCE):
            yield self.genes[i : i + _GENES_AT_ONCE], self.values[:, i : i + _GENES_AT_ONCE]


def import_predictions(
    store: Store, slide_id: str, path: Path, model: str, licence: str, unit: str, side_px: float | None = None
) -> tuple[int, int]:
    """Store the predictions of a file for a slide, in place of those of the same model. Returns the numbers of tiles and genes.

    An .h5ad has tiles by genes in X and tile centres in `obsm['spatial']`; a Parquet or CSV file has the columns tile_id,
    center_x_px, center_y_px and one per gene. `unit` is `log1p`, or `counts` of which log1p is taken. Raises
    `ImportFileError` for a slide that is not registered, tiles outside the scan, a tile or gene twice, or values that do not
    fit the unit, `SpotsError` for an .h5ad with parts in other files; nothing is stored then.
    """
    if not _MODEL.fullmatch(model):
        raise ImportFileError(
            f"{one_line(model)}: is no name of a model; use letters, digits, _ . + -, and not stpath…"
        )
    if not licence.strip():
        raise ImportFileError(f"{model}: has no licence; name it, or write unknown: --licence")
    row = Registry(store).get(slide_id)
    found = _read_h5ad(path) if path.suffix.lower() == ".h5ad" else _of_frame(read_frame(path))
    found = _logged(path, found, unit)
    _require_inside(path, found, row)
    about = {
        "slide_id": slide_id, "model": model, "licence": licence.strip(), "unit": unit, "source": path.name,
        "sha256": sha256_of_file(path), "side_px": side_px, "imported_at": datetime.now(UTC),
    }  # fmt: skip
    _write(store, row, {model: found}, [about], [model])
    return len(found.tile_ids), len(found.genes)


def remove_predictions(store: Store, slide_id: str, model: str) -> None:
    """Remove the imported predictions of a model for a slide. Raises `ImportFileError` if there are none."""
    row = Registry(store).get(slide_id)
    if model not in {m["model"] for m in _models(store, slide_id)}:
        raise ImportFileError(f"{slide_id}: has no imported predictions by {one_line(model)}; see imported_models")
    _write(store, row, {}, [], [model])


def _write(
    store: Store, row: Registered, new: dict[str, Predicted], about: list[dict[str, Any]], replaced: Sequence[str]
) -> None:
    """Store the slide's imported models anew: those that stay, and the new ones. Another import of the slide waits meanwhile."""
    with lock(store.home / "locks" / "imports" / f"{row.slide_id}.lock", _WAIT_S, f"{row.slide_id}: an import"):
        _write_locked(store, row, new, about, replaced)


def _write_locked(
    store: Store, row: Registered, new: dict[str, Predicted], about: list[dict[str, Any]], replaced: Sequence[str]
) -> None:
    slide_id, stay = row.slide_id, [m for m in _models(store, row.slide_id) if m["model"] not in replaced]
    tables = (IMPORTED_PREDICTIONS.name, IMPORTED_BY_SLIDE.name, IMPORTED_MODELS.name)
    if not stay and not new:
        store.remove(tables, slide_id)
        return
    facts = [{k: m[k] for k in ("model", "sha256", "unit", "licence")} for m in (*stay, *about)]
    sections: dict[str, tuple[dict[str, npt.NDArray], Iterable[_Block]]] = {}
    summaries = [IMPORTED_BY_SLIDE.schema.empty_table()]
    for m in stay:
        parts = store.read_blocks(IMPORTED_PREDICTIONS.name, slide_id, m["model"])
        first = next(parts)
        sections[m["model"]] = first.keys, _again(first, parts)
    if stay:
        kept = store.read(IMPORTED_BY_SLIDE.name, slide_id)
        summaries.append(kept.filter(pa.compute.is_in(kept["model"], pa.array([m["model"] for m in stay]))))
    for model, found in new.items():
        sections[model] = found.keys, found.blocks()
        near = neighbours(found.centers)
        summaries += [summary_rows(slide_id, model, list(genes), values, near) for genes, values in found.blocks()]
    with store.stage(slide_id, start(slide_sha256=row.sha256, imported=facts)) as stage:
        stage.write_sections(IMPORTED_PREDICTIONS.name, sections)
        stage.write(IMPORTED_BY_SLIDE.name, pa.concat_tables(summaries).combine_chunks())
        stage.write(IMPORTED_MODELS.name, pa.Table.from_pylist([*stay, *about], IMPORTED_MODELS.schema))


def _models(store: Store, slide_id: str) -> list[dict[str, Any]]:
    if store.part(IMPORTED_MODELS.name, slide_id) is None:
        return []
    return list(store.read(IMPORTED_MODELS.name, slide_id).to_pylist())


def _again(first: ByGene, rest: Iterator[ByGene]) -> Iterator[_Block]:
    for block in chain([first], rest):
        if block.genes:
            yield block.genes, block.values


def _read_h5ad(path: Path) -> Predicted:
    said, arrays = confined_arrays(_read_into, str(path), name=str(path), error=ImportFileError)
    return Predicted(said["tile_ids"], arrays["centers"], said["genes"], arrays["values"])


def _read_into(file: str, folder: str) -> dict[str, Any]:
    """Read an .h5ad, and hand over what it holds. Runs in the child."""
    found = _read_here(Path(file))
    hand_over(folder, centers=found.centers, values=found.values)
    return {"tile_ids": found.tile_ids, "genes": found.genes}


def _read_here(path: Path) -> Predicted:
    import anndata

    refuse_links(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # names that occur twice are refused below
            data = anndata.read_h5ad(path)
    except Exception as e:  # anndata and h5py raise many types for a file that is none
        raise ImportFileError(f"{path}: cannot be read as .h5ad ({describe(e, 120)}); write it again") from e
    if "spatial" not in data.obsm:
        raise ImportFileError(f"{path}: has no obsm['spatial']; put the tiles' centres there, in level-0 pixels")
    centers = np.asarray(data.obsm["spatial"], np.float64)
    if centers.ndim != 2 or centers.shape[1] != 2:
        raise ImportFileError(f"{path}: obsm['spatial'] must be (tiles, 2), x and y; it is {centers.shape}")
    x = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    ids = data.obs.get("tile_id", data.obs_names)
    return _sorted(path, [str(i) for i in ids], centers, [str(g) for g in data.var_names], x.astype(np.float32))


def _of_frame(frame: Frame) -> Predicted:
    frame.require(_PLACES, frame.names)
    genes = [n for n in frame.names if n not in _PLACES]
    centers = np.column_stack([np.array(frame.numbers(c), np.float64) for c in _PLACES[1:]])
    columns = [_floats(frame, gene) for gene in genes]
    values = np.column_stack(columns) if columns else np.zeros((frame.n, 0), np.float32)
    return _sorted(frame.path, frame.texts("tile_id"), centers, genes, values)


def _floats(frame: Frame, gene: str) -> npt.NDArray[np.float32]:
    values = [to_number(v) for v in frame.columns[gene]]
    if None in values:
        i = values.index(None)
        frame.fail(i, gene, f"{one_line(str(frame.columns[gene][i]))[:60]!r} is no number; every tile needs a value")
    return np.array(values, np.float32)


def _sorted(
    path: Path, ids: list[str], centers: npt.NDArray[np.float64], genes: list[str], values: npt.NDArray[np.float32]
) -> Predicted:
    """Return predictions with genes in ascending order. Raises `ImportFileError` for a tile or gene that is there twice."""
    for what, names in (("tile", ids), ("gene", genes)):
        if not names:
            raise ImportFileError(f"{path}: has no {what}s")
        twice, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ImportFileError(f"{path}: {what} {one_line(twice)} is there twice; keep one")
        if any(not n.strip() for n in names):
            raise ImportFileError(f"{path}: a {what} has no name")
    order = np.argsort(np.array(genes, object), kind="stable")
    return Predicted(ids, centers, [genes[i] for i in order], np.ascontiguousarray(values[:, order]))


def _logged(path: Path, found: Predicted, unit: str) -> Predicted:
    """Return the predictions as log1p. Raises `ImportFileError` for values that do not fit the unit, with tile and gene."""
    values = found.values

    def fail(bad: npt.NDArray[np.bool_], what: str) -> None:
        i, g = np.unravel_index(int(np.argmax(bad)), bad.shape)
        where = f"tile {one_line(found.tile_ids[i])}, gene {one_line(found.genes[g])}"
        raise ImportFileError(f"{path}: {where}: {values[i, g]:g} {what}")

    if not np.isfinite(values).all():
        fail(~np.isfinite(values), "is no number; every tile needs a value of every gene")
    if unit == "counts":
        if values.min() < 0:
            fail(values < 0, "is negative, so it is no count; is it --unit log1p?")
        return Predicted(found.tile_ids, found.centers, found.genes, np.log1p(values))
    if values.max() > _MAX_LOG1P:
        fail(values > _MAX_LOG1P, f"is more than {_MAX_LOG1P:g}, so it was not logged; is it --unit counts?")
    if values.min() < _LEAST_LOG1P:
        fail(
            values < _LEAST_LOG1P,
            f"is less than {_LEAST_LOG1P:g}, so it is no log1p; give predictions that are not scaled",
        )
    if values.max() >= 2 and (values == np.round(values)).all():
        fail(values == values.max(), "and all others are whole numbers, so these are counts: --unit counts")
    return found


def _require_inside(path: Path, found: Predicted, row: Registered) -> None:
    xy = found.centers
    outside = ~np.isfinite(xy).all(axis=1) | (xy < 0).any(axis=1) | (xy > [row.width_px, row.height_px]).any(axis=1)
    if outside.any():
        i = int(np.argmax(outside))
        raise ImportFileError(
            f"{path}: tile {one_line(found.tile_ids[i])}: its centre {xy[i, 0]:g}, {xy[i, 1]:g} is outside of "
            f"{row.slide_id} ({row.width_px} × {row.height_px}); give level-0 pixels"
        )
