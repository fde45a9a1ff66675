"""95 % intervals of correlations over spots. Neighbours are alike, so K spots count for fewer than K.

    spacing = Spacing.of(xy_um)
    low, high = fisher(r, spacing.effective_n(predicted, measured))

The effective number of spots is that of Dutilleul, Biometrics 49, 1993. On drawn fields of known correlation, this interval holds
it at its nominal rate, whatever the range of likeness. Drawing blocks of spots again (block bootstrap) holds it less often, the
more so the further values are alike: `benchmarks.intervals`.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import scipy

from stpath_assets.evaluation.scores import Values

EDGES = (1.5, 2.5, 3.5, 5.5, 8.5, 13.5, 21.5)
"""Upper ends of the classes of distance, in distances between neighbours: fine where likeness falls, coarse beyond."""

MOST = 1000
"""Spots of which pairs are formed to measure likeness; of more, these are drawn at random."""

SEED = 0

_Z_95 = NormalDist().inv_cdf(0.975)
_ROWS = 512  # spots whose distances to all others are in memory at a time


def fisher(r: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Values, Values]:
    """Return tanh(atanh r ± 1.96 / sqrt(n - 3)) for n independent spots (Fisher, Metron 1, 1921). NaN for n <= 3."""
    r, n = np.asarray(r, np.float64), np.asarray(n, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        z, reach = np.arctanh(r), np.where(n > 3, _Z_95 / np.sqrt(n - 3), np.nan)
        return np.tanh(z - reach), np.tanh(z + reach)


def difference(r_a: Values, r_b: Values, r_ab: Values, n: Values) -> tuple[Values, Values]:
    """Return the 95 % interval of r_a - r_b, two correlations with the same measurement; r_ab is that of the predictions.

    From both intervals of n independent spots and the correlation of both estimates (Zou, Psychological Methods 12, 2007). NaN
    where one of them is undefined.
    """
    low_a, high_a = fisher(r_a, n)
    low_b, high_b = fisher(r_b, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = ((r_ab - r_a * r_b / 2) * (1 - r_a**2 - r_b**2 - r_ab**2) + r_ab**3) / ((1 - r_a**2) * (1 - r_b**2))
        both = np.clip(both, -1, 1)
        down = (r_a - low_a) ** 2 + (high_b - r_b) ** 2 - 2 * both * (r_a - low_a) * (high_b - r_b)
        up = (high_a - r_a) ** 2 + (r_b - low_b) ** 2 - 2 * both * (high_a - r_a) * (r_b - low_b)
        return r_a - r_b - np.sqrt(np.maximum(down, 0)), r_a - r_b + np.sqrt(np.maximum(up, 0))


def pitch_of(xy_um: Values) -> float:
    """Return the median distance of a spot to its nearest neighbour, µm; 0 for fewer than two spots."""
    if len(xy_um) < 2:
        return 0.0
    return float(np.median(scipy.spatial.cKDTree(xy_um).query(xy_um, k=2)[0][:, 1]))


@dataclass(frozen=True)
class Spacing:
    """The K spots of a slide by classes of distance, C with that of each spot to itself. The same for all genes.

    `chosen` (M,) are the spots of which pairs are formed, `near` (C, M, M) tells which pairs are of each class. `traces` (C,) and
    `products` (C, C) are tr(B D_c) and tr(B D_c B D_d) of all K spots, with D_c the matrix of pairs of class c and B = I - 11ᵀ/K.
    """

    chosen: npt.NDArray[np.intp]
    near: npt.NDArray[np.float32]
    traces: Values
    products: Values

    @classmethod
    def of(cls, xy_um: Values) -> "Spacing":
        """Form classes of spots at xy_um, (K, 2) µm."""
        k = len(xy_um)
        edges = np.array(EDGES) * pitch_of(xy_um)
        classes = len(edges) + 2
        partners = np.zeros((k, classes))
        for start in range(0, k, _ROWS):
            labels = _classes(xy_um[start : start + _ROWS], xy_um, edges, start)
            for c in range(classes):
                partners[start : start + len(labels), c] = (labels == c).sum(axis=1)
        total = partners.sum(axis=0)
        # Sums over the pairs of one class of another's centred matrix, from each spot's number of partners alone.
        products = np.diag(total) - 2 / k * partners.T @ partners + np.outer(total, total) / k**2
        traces = np.where(np.arange(classes) == 0, float(k), 0.0) - total / k
        chosen = np.arange(k) if k <= MOST else np.sort(np.random.default_rng(SEED).choice(k, MOST, replace=False))
        labels = _classes(xy_um[chosen], xy_um[chosen], edges, 0)
        near = np.stack([(labels == c).astype(np.float32) for c in range(classes)])
        return cls(chosen, near, traces, products)

    def effective_n(self, x: Values, y: Values) -> Values:
        """Return how many independent spots would give the correlations of x and y, (K, G), the same variance: (G,), at most K.

        n = 1 + tr(BΣx) tr(BΣy) / tr(BΣxBΣy), with autocovariances measured by class. NaN where a side is constant.
        """
        of_x, of_y = self._likeness(x), self._likeness(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.einsum("cg,cd,dg->g", of_x, self.products, of_y) / (
                (self.traces @ of_x) * (self.traces @ of_y)
            )
            n = np.where(variance > 0, np.minimum(1 + 1 / variance, len(x)), len(x))
        return np.where((np.ptp(x, axis=0) > 0) & (np.ptp(y, axis=0) > 0), n, np.nan)

    def _likeness(self, values: Values) -> Values:
        """Return the autocorrelation by class of distance, (K, G) -> (C, G)."""
        z = _standardized(values)[self.chosen].astype(np.float32)
        pairs = np.maximum(self.near.sum(axis=(1, 2)), 1.0)
        of_class = np.stack([np.einsum("mg,mg->g", z, of @ z) for of in self.near[1:]]) / pairs[1:, None]
        return np.concatenate([np.ones((1, values.shape[1])), of_class])


def _classes(some: Values, xy_um: Values, edges: Values, first: int) -> npt.NDArray[np.int64]:
    """Return the class of distance of some spots to all, (M, K): 0 for a spot itself, `some` being those from `first` on."""
    labels = np.searchsorted(edges, scipy.spatial.distance.cdist(some, xy_um)) + 1
    rows = np.arange(len(some))
    labels[rows, first + rows] = 0
    return labels


def _standardized(values: Values) -> Values:
    """Return columns with mean 0 and variance 1; constant ones are 0."""
    centred = values - values.mean(axis=0)
    spread = np.where(np.ptp(values, axis=0) == 0, np.inf, centred.std(axis=0))
    return np.asarray(centred / spread)
