"""What a report says: rows of the catalog's views, and small copies of the slides' pictures."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stpath_assets.catalog import Catalog
from stpath_assets.prediction.stored import DEMO
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, pictures
from stpath_assets.storage.lake import quote

Row = dict[str, Any]

_MOST_GENES = 25
_THUMBNAIL_PX, _FIGURE_PX = 120, 760
_MOST_FIGURES = 4
_MOST_MAPS, _MAP_PX = 40, 480
"""So that the report of a large cohort can still be mailed."""

_OF_PROVENANCE = (
    "encoder", "encoder_weights_sha256", "encoder_precision", "model", "stpath_weights_sha256", "vocabulary_sha256", "dtype",
    "tile_mpp", "tile_px", "tile_stride", "organ", "tech",
)  # fmt: skip

LICENCES = {
    "gigapath": "GigaPath: weights under the terms of its page at Hugging Face, prov-gigapath/prov-gigapath (gated access)",
    "stpath": "STPath: weights under the terms of its page at Hugging Face, tlhuang/STPath",
    "demo": "demo descriptor and demo weights: part of stpath-assets, Apache-2.0; they say nothing of biology",
    "fitted": "fitted predictors: made here from the measured slides named above; the terms of these data hold",
}


@dataclass(frozen=True)
class Cohort:
    """The content of the cohort's report."""

    slides: list[Row]
    quality: list[Row]
    registration: list[Row]
    scores: list[tuple[str, list[Row]]]
    comparisons: list[Row]
    genes: list[Row]
    maps: list[tuple[str, str]]
    provenance: list[Row]
    licences: list[str]
    has_demo: bool


@dataclass(frozen=True)
class OfSlide:
    """The content of a slide's report. `figures` are (title, data URI)."""

    row: Row
    stages: list[Row]
    scores: list[Row]
    genes: list[Row]
    high: list[Row]
    figures: list[tuple[str, str]]
    provenance: list[Row]
    has_demo: bool


def cohort_of(settings: Settings) -> Cohort:
    """Return what the cohort's report says."""
    with Catalog(settings) as catalog:
        slides = _rows(catalog, "select * from cohort where status = 'ready' order by slide_id")
        of_slide = {row["slide_id"]: row for row in _means(catalog)}
        for row in slides:
            row["r"] = of_slide.get(row["slide_id"], {}).get("r")
            row["r_depth"] = of_slide.get(row["slide_id"], {}).get("r_depth")
            row["thumbnail"] = _thumbnail(settings, row["slide_id"])
        models = _rows(
            catalog,
            "select distinct model from evaluation_metrics union select distinct model from expression_by_slide",
        )
        return Cohort(
            slides=slides,
            quality=_quality(catalog),
            registration=_rows(catalog, "select * from spot_registration order by verdict desc, slide_id"),
            scores=_scores(catalog),
            comparisons=_comparisons(catalog),
            genes=_rows(
                catalog,
                f"""select gene, organ, model, patients, r, r_low, r_high, r_beyond_depth, r_depth from gene_reliability
                where protocol = 'tutorial:raw_log1p' order by r desc nulls last limit {_MOST_GENES}""",
            ),
            maps=_maps(settings, [row["slide_id"] for row in slides]),
            provenance=_provenance(catalog, "true"),
            licences=_licences(catalog, [row["model"] for row in models]),
            has_demo=any(row["model"] == DEMO for row in models),
        )


def slide_of(settings: Settings, slide_id: str) -> OfSlide:
    """Return what a slide's report says. Raises `SlideError` for a slide that is not registered, or retired."""
    Registry(Store.of(settings)).choose([slide_id])
    mine = f"slide_id = {quote(slide_id)}"
    with Catalog(settings) as catalog:
        (row,) = _rows(
            catalog,
            f"""select s.slide_id, organ, tech, cohort, width_px, height_px, mpp, mpp_source, tiles, spots_fit
            from slides s left join (select slide_id, tiles, spots_fit from cohort) c using (slide_id) where {mine}""",
        )
        high = _rows(
            catalog,
            f"""select gene, model, mean, z, percentile, peers, share_above_cut, smoothness from expression_by_slide
            where {mine} order by z desc nulls last, mean desc limit {_MOST_GENES}""",
        )
        models = {r["model"] for r in _rows(catalog, f"select distinct model from expression_by_slide where {mine}")}
        return OfSlide(
            row=row,
            stages=_rows(
                catalog, f"select table_name, row_count, size_bytes, made_at from lineage where {mine} order by made_at"
            ),
            scores=[r for r in _means(catalog, by_model=True) if r["slide_id"] == slide_id],
            genes=_rows(
                catalog,
                f"""select gene, model, n_spots, pearson_r, pearson_low, pearson_high, r_depth, r_beyond_depth
                from evaluation_metrics where {mine} and protocol = 'tutorial:raw_log1p'
                order by pearson_r desc nulls last limit {_MOST_GENES}""",
            ),
            high=high,
            figures=_figures(settings, slide_id),
            provenance=_provenance(catalog, mine),
            has_demo=DEMO in models,
        )


def _rows(catalog: Catalog, sql: str) -> list[Row]:
    return catalog.sql(sql).to_arrow_table().to_pylist()


def _means(catalog: Catalog, by_model: bool = False) -> list[Row]:
    """Return mean scores over genes, by slide: of STPath, or of each model and protocol."""
    which = "true" if by_model else "protocol = 'tutorial:raw_log1p' and model like 'stpath%'"
    of = "slide_id, model, protocol" if by_model else "slide_id"
    return _rows(
        catalog,
        f"""select {of}, count(pearson_r) as genes, max(n_spots) as spots, avg(pearson_r) as r, avg(r_depth) as r_depth,
        avg(r_beyond_depth) as r_beyond_depth from evaluation_metrics where {which} group by {of} order by {of}""",
    )


def _scores(catalog: Catalog) -> list[tuple[str, list[Row]]]:
    """Return, by protocol, each model's mean r over slides with a 95 % interval (Student's t over slides' means), best first, and
    that of depth alone.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in _means(catalog, by_model=True):
        found.setdefault((row["model"], row["protocol"]), []).append(row)
    scores = []
    for (model, protocol), rows in found.items():
        low, high = _interval([r["r"] for r in rows if r["r"] is not None and math.isfinite(r["r"])])
        scores.append(
            {
                "model": model, "protocol": protocol, "slides": len(rows), "spots": sum(r["spots"] or 0 for r in rows),
                "genes": max(r["genes"] for r in rows), "r": _mean(r["r"] for r in rows), "low": low, "high": high,
                "r_depth": _mean(r["r_depth"] for r in rows), "r_beyond_depth": _mean(r["r_beyond_depth"] for r in rows),
            }
        )  # fmt: skip
    by_protocol: dict[str, list[Row]] = {}
    for score in sorted(scores, key=lambda s: (_rank(s["protocol"]), -2 if s["r"] is None else -s["r"])):
        by_protocol.setdefault(score["protocol"], []).append(score)
    return list(by_protocol.items())


def _rank(protocol: str) -> tuple[bool, str]:
    """Return a protocol's place in the report: the tutorial's on raw counts first."""
    design, _, scale = protocol.rpartition(":")
    return design != "tutorial", f"{scale != 'raw_log1p'} {protocol}"


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return float(np.mean(known)) if known else None


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a mean; None for fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return None, None
    reach = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return max(-1.0, float(np.mean(values) - reach)), min(1.0, float(np.mean(values) + reach))


def _comparisons(catalog: Catalog) -> list[Row]:
    """Return the median difference of r of each two models over genes and slides, and how often its interval is above zero."""
    return _rows(
        catalog,
        """select model, than, protocol, count(r_difference) as n, median(r_difference) as difference,
        avg((low > 0)::integer) as better, avg((high < 0)::integer) as worse
        from model_comparison where protocol = 'tutorial:raw_log1p' group by all order by difference desc""",
    )


def _quality(catalog: Catalog) -> list[Row]:
    return _rows(
        catalog,
        """select slide_id, count(*) as tiles, median(tissue_fraction) as tissue, avg(pen_fraction) as pen,
        avg(blank_fraction) as blank, median(saturation) as saturation, median(focus) as focus
        from tile_grids group by slide_id order by slide_id""",
    )


def _provenance(catalog: Catalog, which: str) -> list[Row]:
    """Return what predictions were made from: each fact with its values and the number of slides."""
    rows = _rows(
        catalog,
        f"""select slide_id, facts from lineage where {which}
        and table_name in ('stpath_predictions', 'reference_predictions') and row_count > 0""",
    )
    counts: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        facts = json.loads(row["facts"])
        for name in _OF_PROVENANCE:
            if facts.get(name) is not None:
                counts.setdefault((name, str(facts[name])), set()).add(row["slide_id"])
    return [{"fact": name, "value": value, "slides": len(slides)} for (name, value), slides in sorted(counts.items())]


def _licences(catalog: Catalog, models: Sequence[str]) -> list[str]:
    encoders = {row["encoder"] for row in _rows(catalog, "select distinct encoder from gigapath_features")}
    wanted = {
        "gigapath": "gigapath" in encoders,
        "stpath": "stpath" in models,
        "demo": "demo" in encoders,
        "fitted": any(":" in model for model in models),
    }
    imported = _rows(catalog, "select distinct model, licence from imported_models order by model")
    return [
        *(text for name, text in LICENCES.items() if wanted[name]),
        *(f"{row['model']}: imported; {row['licence']}" for row in imported),
    ]


def _thumbnail(settings: Settings, slide_id: str) -> str | None:
    path = pictures.folder_of(settings.home, slide_id) / "tiles.png"
    return pictures.small_jpeg_of(path, _THUMBNAIL_PX) if path.exists() else None


def _maps(settings: Settings, slide_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return small copies of pictures that compare slides: r of slides by genes for each model, and a map of each slide, of the
    gene that most of them have a map of. Each is (title, data URI).
    """
    home = settings.home
    found = [
        (p.stem.replace("_", " "), pictures.small_jpeg_of(p, _FIGURE_PX))
        for p in sorted((home / "figures").glob("cohort_*.png"))
    ]
    drawn = {s: {p.name: p for p in pictures.folder_of(home, s).glob("map_*.png")} for s in slide_ids}
    names = Counter(name for paths in drawn.values() for name in paths)
    if not names:
        return found
    name = min(names, key=lambda n: (-names[n], n))
    some = [(s, paths[name]) for s, paths in drawn.items() if name in paths][:_MOST_MAPS]
    return found + [
        (f"{s}: {Path(name).stem.removeprefix('map_')}", pictures.small_jpeg_of(p, _MAP_PX)) for s, p in some
    ]


def _figures(settings: Settings, slide_id: str) -> list[tuple[str, str]]:
    """Return small copies of a slide's figures: its tiles, then overviews, and the first few genes."""
    folder = pictures.folder_of(settings.home, slide_id)
    found: list[Path] = [
        p for p in (folder / "tiles.png", folder / "page_genes.png", folder / "ranks_genes.png") if p.exists()
    ]
    compared = sorted(folder.glob("compare_*.png"))
    found += (compared or sorted(folder.glob("map_*.png")))[:_MOST_FIGURES]
    titles = {
        "tiles.png": "tiles kept and dropped",
        "page_genes.png": "genes, measured above predicted",
        "ranks_genes.png": "r of all genes",
    }
    return [(titles.get(p.name, p.stem.replace("_", " ", 1)), pictures.small_jpeg_of(p, _FIGURE_PX)) for p in found]
