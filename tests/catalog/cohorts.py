"""A small cohort with drawn values, by which tests compute again what the catalog's views say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.prediction.summaries import neighbours, summary_rows
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import start
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import EXPRESSION_BY_SLIDE, GIGAPATH_FEATURES, SLIDES, STPATH_PREDICTIONS, TILE_GRIDS

GENES = ["CD3E", "EPCAM", "ERBB2"]
SIDE = 448.0


@dataclass(frozen=True)
class Drawn:
    """A slide: where its tiles are, (N, 2) level-0 pixels; values (N, genes); features (N, 1536)."""

    slide_id: str
    organ: str | None
    patient_id: str | None
    vendor: str
    site: str | None
    xy: npt.NDArray[np.float64]
    values: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    encoder: str = "demo"

    @property
    def tiles(self) -> list[str]:
        return [f"r{int(y):05d}c{int(x):05d}" for x, y in self.xy]


def draw(slide_id: str, seed: int, **known: Any) -> Drawn:
    """A slide whose tiles are some of a grid of 6 by 5."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2)
    xy = (at[rng.random(len(at)) < 0.8] + 0.5) * SIDE
    about = {"organ": "Breast", "patient_id": f"P{seed}", "vendor": "aperio", "site": "A"} | known
    values = (rng.gamma(1.5, 0.6, (len(xy), len(GENES))) + 0.2 * seed).astype(np.float32)
    return Drawn(
        slide_id, xy=xy, values=values, features=rng.standard_normal((len(xy), 1536)).astype(np.float32), **about
    )


def store_slide(store: Store, slide: Drawn) -> None:
    """Registers a slide with its tiles, features, predictions and their summary."""
    store.create()
    row = {
        "slide_id": slide.slide_id, "uri": f"/scans/{slide.slide_id}.tif", "sha256": "0" * 64, "size_bytes": 1,
        "width_px": 6000, "height_px": 6000, "mpp": 0.25, "mpp_source": "file", "backend": "tiffslide", "levels": 1,
        "status": "ready", "warnings": [], "registered_at": datetime(2026, 1, 1, tzinfo=UTC), "organ": slide.organ,
        "patient_id": slide.patient_id, "vendor": slide.vendor,
        "more": None if slide.site is None else json.dumps({"site": slide.site}),
    }  # fmt: skip
    store.lake.transact(lambda c: insert_rows(c, SLIDES, pa.Table.from_pylist([row], SLIDES.schema)))
    n, ids = len(slide.xy), slide.tiles
    grid = {
        "slide_id": [slide.slide_id] * n, "tile_id": ids, "x_px": slide.xy[:, 0] - SIDE / 2, "y_px": slide.xy[:, 1] - SIDE / 2,
        "center_x_px": slide.xy[:, 0], "center_y_px": slide.xy[:, 1], "side_px": np.full(n, SIDE), "mpp": np.full(n, 0.5),
        "tile_px": np.full(n, 224, np.int32), "tissue_fraction": np.linspace(0.5, 1, n), "pen_fraction": np.zeros(n),
        "blank_fraction": np.zeros(n),
    }  # fmt: skip
    listed = pa.FixedSizeListArray.from_arrays(pa.array(slide.features.ravel()), 1536)
    features = {"slide_id": [slide.slide_id] * n, "tile_id": ids, "encoder": [slide.encoder] * n, "feature": listed}
    with store.stage(slide.slide_id, start(slide_sha256="0" * 64)) as stage:
        stage.write(TILE_GRIDS.name, _table(TILE_GRIDS.schema, grid, n))
        stage.write(GIGAPATH_FEATURES.name, _table(GIGAPATH_FEATURES.schema, features, n))
        keys = {"tile_id": np.array(ids, object)}
        stage.write_by_gene(STPATH_PREDICTIONS.name, keys, [(GENES, slide.values)], model="stpath")
        summary = summary_rows(slide.slide_id, "stpath", GENES, slide.values, neighbours(slide.xy))
        stage.write(EXPRESSION_BY_SLIDE.name, summary)


def make(store: Store) -> list[Drawn]:
    """Five slides: four of breast, two of them of one patient and one of nobody, and one of lung."""
    slides = [
        draw("a", 1), draw("b", 2, vendor="hamamatsu", site="B"), draw("c", 3, patient_id="P1", site="A"),
        draw("d", 4, patient_id=None, vendor="hamamatsu", site=None), draw("e", 5, organ="Lung", encoder="gigapath"),
    ]  # fmt: skip
    for slide in slides:
        store_slide(store, slide)
    return slides


def _table(schema: pa.Schema, columns: dict[str, Sequence[Any]], n: int) -> pa.Table:
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.table(arrays, schema=schema)
