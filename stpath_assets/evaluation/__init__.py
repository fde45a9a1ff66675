"""Evaluation: measured expression of a slide's spots, and how well the predictions agree with it.

`formats` reads the file forms, `spots` turns them into raw counts with positions on the scan, `score` pairs spots
with tiles and scores each gene, in rows of `evaluation_metrics`. Predictions are made in `prediction`.
"""

from stpath_assets.evaluation.evaluate import Paired, metrics_from, read_pairs, spots_from, store_metrics, store_spots
from stpath_assets.evaluation.score import PROTOCOL, empty_metrics, metrics_table, pair
from stpath_assets.evaluation.spots import Spots, check_inside, read_spots, spots_fingerprint

# The function `score.score` stays in its module: exported here it would hide the module of that name.
__all__ = [
    "PROTOCOL",
    "Paired",
    "Spots",
    "check_inside",
    "empty_metrics",
    "metrics_from",
    "metrics_table",
    "pair",
    "read_pairs",
    "read_spots",
    "spots_fingerprint",
    "spots_from",
    "store_metrics",
    "store_spots",
]
