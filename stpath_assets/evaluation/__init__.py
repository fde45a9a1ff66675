"""Evaluation: how well predictions agree with the measured expression of a slide's spots.

`registration` checks whether spots fit their scan at all. `pairing` finds each spot's tile, `protocols` says on which scale they
are compared, `scores` and `intervals` are the statistics, and `storing` keeps rows of `evaluation_metrics`. `fitting` fits
predictors to measured slides. Measurements are
read in `spots`; predictions are made in `prediction`.
"""

from stpath_assets.evaluation.fitting import fit
from stpath_assets.evaluation.hest import hest_bench
from stpath_assets.evaluation.notebook import evaluate, plot
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import CP10K, PROTOCOLS, RAW
from stpath_assets.evaluation.registration import check_registration, registration_from, store_registration
from stpath_assets.evaluation.storing import Paired, metrics_from, read_pairs, store_metrics

__all__ = [
    "CP10K",
    "PROTOCOLS",
    "RAW",
    "Paired",
    "check_registration",
    "evaluate",
    "fit",
    "hest_bench",
    "metrics_from",
    "pair",
    "plot",
    "read_pairs",
    "registration_from",
    "store_metrics",
    "store_registration",
]
