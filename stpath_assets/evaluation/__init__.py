"""Evaluation: how well predictions agree with the measured expression of a slide's spots.

`score` pairs spots with tiles and scores each gene, in rows of `evaluation_metrics`. Measurements are read in `spots`;
predictions are made in `prediction`.
"""

from stpath_assets.evaluation.evaluate import Paired, metrics_from, read_pairs, store_metrics
from stpath_assets.evaluation.score import PROTOCOL, empty_metrics, metrics_table, pair

# The function `score.score` stays in its module: exported here it would hide the module of that name.
__all__ = [
    "PROTOCOL",
    "Paired",
    "empty_metrics",
    "metrics_from",
    "metrics_table",
    "pair",
    "read_pairs",
    "store_metrics",
]
