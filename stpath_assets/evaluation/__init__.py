"""Evaluation: how well predictions agree with the measured expression of a slide's spots.

`registration` checks whether spots fit their scan at all. `pairing` finds each spot's tile, `protocols` says on which scale they
are compared, `scores` and `intervals` are the statistics, and `evaluate` stores rows of `evaluation_metrics`. Measurements are
read in `spots`; predictions are made in `prediction`.
"""

from stpath_assets.evaluation.evaluate import Paired, metrics_from, read_pairs, store_metrics
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import CP10K, PROTOCOLS, RAW
from stpath_assets.evaluation.registration import check_registration, registration_from, store_registration

__all__ = [
    "CP10K",
    "PROTOCOLS",
    "RAW",
    "Paired",
    "check_registration",
    "metrics_from",
    "pair",
    "read_pairs",
    "registration_from",
    "store_metrics",
    "store_registration",
]
