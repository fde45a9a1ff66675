"""What the viewer asks of the catalog: slides, models and genes, a gene's values, a tile's genes, tiles that are alike.

Everything is answered from the catalog's views and macros, as any client of the lake could. Values are plain lists and dicts,
ready for JSON; NULL stays None.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Full, LifoQueue
from typing import Any

import duckdb
import numpy as np

from stpath_assets.catalog import Catalog
from stpath_assets.errors import QueryError, ServingError, one_line
from stpath_assets.prediction.stored import DEMO
from stpath_assets.settings import Settings
from stpath_assets.spots.lattice import pitch_of
from stpath_assets.storage.lake import quote
from stpath_assets.storage.pictures import DEMO_NOTE

_KEPT = 3  # connections; more questions at once make connections of their own
_PATIENCE_S = 2.0
_ENDING = "the viewer is ending; start it again: stpath-assets view"
_LOW, _HIGH = 1, 39  # of the 41 quantiles of a gene: 2.5 % and 97.5 %
_SPOT_OF_PITCH = 0.275
"""Radius at which a spot is drawn, of the distance of neighbouring spots: a Visium spot has 55 µm in a pitch of 100 µm."""

_PROTOCOL = "tutorial:raw_log1p"
UNIT = "log1p expression"
Row = dict[str, Any]


class Answers:
    """The catalog of a data root, asked by many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: LifoQueue[Catalog] = LifoQueue(_KEPT)
        self._busy: set[Catalog] = set()
        self._closing = False

    def slides(self) -> list[Row]:
        """Return the slides that are not retired, with organ, technology, tiles, and whether there are predictions and spots."""
        return self._rows(
            """select slide_id, cohort, organ, tech, tiles, measured is not null as measured, spots_fit, failed,
            coalesce(predicted, fitted, imported) is not null as predicted from cohort where status = 'ready' order by slide_id"""
        )

    def models(self, slide_id: str) -> list[Row]:
        """Return what has predicted a slide: its model, number of genes, and a note if it says nothing of biology."""
        found = self._rows(
            f"""select model, count(*) as genes from ({_of_slide(slide_id)}) group by model
            order by model not like 'stpath%', model"""
        )
        return [{**row, "note": DEMO_NOTE if row["model"] == DEMO else None} for row in found]

    def genes(self, slide_id: str, model: str) -> list[Row]:
        """Return a model's genes in a slide: mean over tiles, how smooth (Moran's I), and r if measured; smoothest first."""
        return self._rows(
            f"""select gene, mean, smoothness, pearson_r from ({_of_slide(slide_id)}) e
            left join (select gene, model, pearson_r from evaluation_metrics
              where slide_id = {quote(slide_id)} and protocol = '{_PROTOCOL}') m using (gene, model)
            where model = {quote(model)} order by smoothness desc nulls last, gene"""
        )

    def expression(self, slide_id: str, gene: str, model: str) -> Row:
        """Return a gene's predicted values in a slide and where its tiles lie, level-0 px, with limits for a colour scale.

        `limits` are the 2.5 % and 97.5 % quantiles in this slide, and over the slides of its cohort and organ (the lowest and
        the highest of these).
        """
        columns = self._columns(
            f"""select tile_id, center_x_px, center_y_px, side_px, expression_log1p
            from gene_map({quote(slide_id)}, {quote(gene)}) where model = {quote(model)} order by tile_id"""
        )
        # One question for all peers: the window of `expression_by_slide` has them at hand.
        peers = self._rows(
            f"""with of_gene as (
              select e.*, s.cohort, s.organ from expression_by_slide e join slides s using (slide_id)
              where gene = {quote(gene)} and model = {quote(model)})
            select p.slide_id = o.slide_id as own, p.quantiles[{_LOW + 1}] as low, p.quantiles[{_HIGH + 1}] as high, o.z,
              o.percentile, o.peers, o.mean
            from of_gene p join of_gene o on o.slide_id = {quote(slide_id)}
              and p.cohort is not distinct from o.cohort and p.organ is not distinct from o.organ"""
        )
        own = next((row for row in peers if row["own"]), None)
        values = [v for v in columns["expression_log1p"] if v is not None]
        low, high = _range(values)
        return {
            "gene": gene,
            "model": model,
            "unit": UNIT,
            "tile_id": columns["tile_id"],
            "x": columns["center_x_px"],
            "y": columns["center_y_px"],
            "side": columns["side_px"],
            "value": columns["expression_log1p"],
            "limits": {
                "slide": [low, high],
                "cohort": [
                    min((row["low"] for row in peers if row["low"] is not None), default=low),
                    max((row["high"] for row in peers if row["high"] is not None), default=high),
                ],
            },
            **{name: own[name] if own else None for name in ("z", "percentile", "peers", "mean")},
        }

    def measured(self, slide_id: str, gene: str, model: str) -> Row | None:
        """Return the measured counts of a gene as log1p, where the spots lie (level-0 px), the radius to draw them at, and the
        model's r. None if the gene was not measured in the slide.
        """
        columns = self._columns(
            f"""select spot_id, x_px, y_px, ln(1 + count)::float as value from spot_expression
            where slide_id = {quote(slide_id)} and gene = {quote(gene)} order by spot_id"""
        )
        if not columns["spot_id"]:
            return None
        scores = self._rows(
            f"""select pearson_r, pearson_low, pearson_high, n_spots from evaluation_metrics where slide_id = {quote(slide_id)}
            and gene = {quote(gene)} and model = {quote(model)} and protocol = '{_PROTOCOL}'"""
        )
        return {
            "unit": "log1p of counts",
            "spot_id": columns["spot_id"],
            "x": columns["x_px"],
            "y": columns["y_px"],
            "radius": _SPOT_OF_PITCH * pitch_of(np.column_stack([columns["x_px"], columns["y_px"]])),
            "value": columns["value"],
            "limits": _range(columns["value"]),
            "score": scores[0] if scores else None,
        }

    def tile(self, slide_id: str, tile_id: str, model: str, most: int = 12) -> Row | None:
        """Return a tile's place, tissue, and genes with the highest z within the cohort. None if there is no such tile."""
        place = self._rows(
            f"""select center_x_px, center_y_px, side_px, tissue_fraction from tile_expression where slide_id = {quote(slide_id)}
            and tile_id = {quote(tile_id)} and model = {quote(model)} limit 1"""
        )
        if not place:
            return None
        genes = self._rows(
            f"""select gene, expression_log1p, z from tile_genes({quote(slide_id)}, {quote(tile_id)})
            where model = {quote(model)} order by z desc nulls last, expression_log1p desc limit {most}"""
        )
        return {"tile_id": tile_id, **place[0], "genes": genes}

    def similar(self, slide_id: str, tile_id: str, most: int = 8) -> list[Row]:
        """Return the tiles of the cohort whose features are most like a tile's, with the cosine."""
        return self._rows(
            f"""select slide_id, tile_id, similarity from neighbours({quote(slide_id)}, {quote(tile_id)}, {most})
            where (slide_id, tile_id) <> ({quote(slide_id)}, {quote(tile_id)})"""
        )

    def place_of(self, slide_id: str, tile_id: str) -> tuple[float, float, float] | None:
        """Return a tile's left and top edge and its side, level-0 px, or None if the grid has no such tile."""
        rows = self._rows(
            f"select x_px, y_px, side_px from tile_grids where slide_id = {quote(slide_id)} and tile_id = {quote(tile_id)}"
        )
        return (rows[0]["x_px"], rows[0]["y_px"], rows[0]["side_px"]) if rows else None

    def close(self) -> None:
        """Stop the questions that run, and close the connections."""
        self._closing = True
        until = time.monotonic() + _PATIENCE_S
        while self._busy and time.monotonic() < until:
            for catalog in tuple(self._busy):
                catalog.interrupt()
            time.sleep(0.02)
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    @contextmanager
    def _catalog(self) -> Iterator[Catalog]:
        """Yield a catalog that no other thread uses meanwhile. After an error, it is not used again."""
        if self._closing:
            raise ServingError(_ENDING)
        try:
            catalog = self._idle.get_nowait()
        except Empty:
            catalog = Catalog(self._settings)
        self._busy.add(catalog)
        try:
            yield catalog
        except BaseException:
            catalog.close()
            raise
        else:
            try:
                self._idle.put_nowait(catalog)
            except Full:
                catalog.close()
        finally:
            self._busy.discard(catalog)

    def _columns(self, sql: str) -> dict[str, list[Any]]:
        with self._catalog() as catalog:
            try:
                table = catalog.sql(sql).to_arrow_table()
            except duckdb.InterruptException as e:
                raise ServingError(_ENDING) from e
            except duckdb.Error as e:  # rows are read here, not by `sql`: a file may be gone
                raise QueryError(one_line(str(e))) from e
        return {name: _plain(table[name].to_pylist()) for name in table.column_names}

    def _rows(self, sql: str) -> list[Row]:
        columns = self._columns(sql)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _of_slide(slide_id: str) -> str:
    """Return the summaries of one slide without a comparison with others, which would read all of them."""
    columns = f"select gene, model, mean, smoothness from parts.{{}} where slide_id = {quote(slide_id)}"
    return f"{columns.format('expression_by_slide')} union all {columns.format('imported_by_slide')}"


def _plain(values: list[Any]) -> list[Any]:
    """Return values as JSON has them: floats rounded to what is seen, and None for what is no number."""
    return [(round(v, 4) if np.isfinite(v) else None) if isinstance(v, float) else v for v in values]


def _range(values: list[float]) -> list[float]:
    """Return the 2.5 % and 97.5 % quantiles of values, apart from each other."""
    low, high = np.quantile(values, [0.025, 0.975]).tolist() if values else (0.0, 1.0)
    return [round(low, 4), round(high if high > low else low + 1e-3, 4)]
