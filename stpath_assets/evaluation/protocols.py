"""Protocols: how prediction and measurement are paired and on which scale they are compared.

Each is named `pairing:scale`. In both, a spot is compared with its nearest tile (`pairing`), or with its own where tiles are
centred on spots. A prediction is on one scale, whatever the model was trained for, so r² and mse of the other scale mean little.
Correlation does not see a change of unit, but it does see the depth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stpath_assets.evaluation.scores import Values, correlate

CODE_VERSION = "3"
"""Raised when the same predictions and counts give other rows of `evaluation_metrics`."""

SPLITS = 3
"""Random halves of the counts of which the noise ceiling is the mean."""

SEED = 0

Scale = Callable[[Values, Values], Values]


@dataclass(frozen=True)
class Protocol:
    """A way to compare. `scale` makes measured values (K, G) from raw counts (K, G) and the spots' depths (K,)."""

    name: str
    scale: Scale


def raw_log1p(counts: Values, depth: Values) -> Values:
    """log(1 + count), as in the tutorial. A spot with more counts in all has more of nearly every gene."""
    return np.log1p(counts)


def cp10k_log1p(counts: Values, depth: Values) -> Values:
    """log(1 + count per 10,000 counts of the spot): what is left without the depth. 0 for a spot without any count."""
    return np.log1p(counts * (1e4 / np.where(depth > 0, depth, 1))[:, None])


def protocols_of(design: str) -> tuple[Protocol, Protocol]:
    """Return the protocols of a way to pair and hold out, on both scales."""
    return Protocol(f"{design}:raw_log1p", raw_log1p), Protocol(f"{design}:cp10k_log1p", cp10k_log1p)


RAW, CP10K = PROTOCOLS = protocols_of("tutorial")


def noise_ceiling(counts: npt.NDArray, depth: Values, scale: Scale, seed: int = SEED) -> Values:
    """Return the correlation that a model could reach that knew the expected counts, (G,); NaN where undefined.

    Each count is split at random into two halves (binomial thinning), as if the spot had been measured twice at half the depth.
    Their correlation r gives the reliability at full depth, 2r / (1 + r) (Spearman and Brown), and its square root the ceiling.
    It is undefined where r is, or is not positive: the counts are too few to say.
    """
    rng, whole = np.random.default_rng(seed), np.asarray(counts, np.int64)
    halves = np.zeros(whole.shape[1])
    for _ in range(SPLITS):
        one = rng.binomial(whole, 0.5)
        halves += correlate(scale(one.astype(float), depth / 2), scale((whole - one).astype(float), depth / 2))
    r = halves / SPLITS
    with np.errstate(invalid="ignore"):
        return np.where(r > 0, np.sqrt(2 * r / (1 + r)), np.nan)
