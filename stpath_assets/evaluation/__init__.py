"""Evaluation: how well predictions agree with the measured expression of a slide's spots.

`score` pairs spots with tiles and scores each gene, in rows of `evaluation_metrics`. `registration` checks whether spots fit
their scan at all. Measurements are read in `spots`;
predictions are made in `prediction`.
"""

from stpath_assets.evaluation.evaluate import Paired, metrics_from, read_pairs, store_metrics
from stpath_assets.evaluation.registration import check_registration, registration_from, store_registration
from stpath_assets.evaluation.score import PROTOCOL, empty_metrics, metrics_table, pair

# The function `score.score` stays in its module: exported here it would hide the module of that name.
__all__ = [
    "PROTOCOL",
    "Paired",
    "check_registration",
    "empty_metrics",
    "metrics_from",
    "metrics_table",
    "pair",
    "read_pairs",
    "registration_from",
    "store_metrics",
    "store_registration",
]
