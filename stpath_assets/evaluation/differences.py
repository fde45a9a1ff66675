"""Compares the scores of a slide's models, two at a time, over the same spots: rows of `model_comparison`."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa

from stpath_assets.evaluation.intervals import Spacing, difference
from stpath_assets.evaluation.protocols import PROTOCOLS, Protocol
from stpath_assets.evaluation.scores import Values, correlate
from stpath_assets.tables import MODEL_COMPARISON

_GENES = 512  # compared at a time

Read = Callable[[str, Sequence[str]], tuple[Values, Values]]


def differences_of(
    slide_id: str,
    genes_of: dict[str, list[str]],
    depth: Values,
    xy_um: Values,
    read: Read,
    protocols: Sequence[Protocol] = PROTOCOLS,
) -> Iterator[pa.Table]:
    """Yield a slide's rows of `model_comparison`: each model and each later one, for the genes that both predict.

    `genes_of` has the measured genes of each model. `read(model, genes)` returns predicted log1p expression and raw counts, each
    (K, G); `depth` (K,) and `xy_um` (K, 2) are the spots' sums of counts and places.
    """
    spacing = Spacing.of(xy_um) if len(genes_of) > 1 else None
    for model, than in combinations(genes_of, 2):
        shared = sorted(set(genes_of[model]) & set(genes_of[than]))
        for start in range(0, len(shared), _GENES):
            genes = shared[start : start + _GENES]
            (a, counts), (b, _) = read(model, genes), read(than, genes)
            for protocol in protocols:
                assert spacing is not None
                measured = protocol.scale(counts, depth)
                # The fewer of both: a wider interval, not a narrower one.
                n = np.fmin(spacing.effective_n(a, measured), spacing.effective_n(b, measured))
                r_a, r_b = correlate(a, measured), correlate(b, measured)
                low, high = difference(r_a, r_b, correlate(a, b), n)
                named = {"slide_id": slide_id, "protocol": protocol.name, "model": model, "than": than}
                numbers = {"r_difference": r_a - r_b, "low": low, "high": high}
                columns = {name: pa.array(values, mask=np.isnan(values)) for name, values in numbers.items()}
                repeated = {name: [value] * len(genes) for name, value in named.items()}
                yield pa.Table.from_pydict({**repeated, "gene": genes, **columns}, MODEL_COMPARISON.schema)
