"""How often 95 % intervals of a correlation hold the truth, by three methods: `python -m benchmarks.intervals`, a minute.

Draws pairs of Gaussian fields of known correlation on a square of spots 200 µm apart, alike over some distance (autocorrelation
exp(-distance / range)). Beside our interval stand Fisher's for independent spots, and a block bootstrap with blocks of three
pitches or the measured range of likeness, the larger of both, if that leaves 20 blocks. Then the time for all genes of a section.
"""

import time

import numpy as np
import numpy.typing as npt
import scipy

from benchmarks.tiles import cpu_model
from stpath_assets.evaluation.intervals import Spacing, fisher
from stpath_assets.evaluation.scores import correlate

PITCH_UM = 200.0
SIDES = (14, 18, 30)
RANGES_UM = (0, 200, 400, 800)
RHO = 0.5
TRIES = 400
RESAMPLES = 1000
FEWEST_BLOCKS = 20
ALIKE = 0.05

Values = npt.NDArray[np.float64]


def main() -> None:
    """Print the table, and the time."""
    print(f"{cpu_model()}\n")
    print("| spots | range, µm | effective number | independent spots | block bootstrap | blocks |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * PITCH_UM
        spacing = Spacing.of(xy)
        for range_um in RANGES_UM:
            x, y = fields(xy, range_um, seed=range_um + side)
            r = correlate(x, y)
            ours = held(*fisher(r, spacing.effective_n(x, y)))
            plain = held(*fisher(r, len(xy)))
            blocks = blocks_of(xy, max(3 * PITCH_UM, measured_range(xy, x[:, :64], y[:, :64])))
            n = int(blocks.max()) + 1
            drawn = f"{held(*bootstrap(blocks, x, y)):.1%}" if n >= FEWEST_BLOCKS else "too few blocks"
            print(f"| {len(xy)} | {range_um} | {ours:.1%} | {plain:.1%} | {drawn} | {n} |", flush=True)
    rng = np.random.default_rng(0)
    for k, g in ((187, 15_706), (4_992, 2_000)):
        xy, x = rng.uniform(0, 6500, (k, 2)), rng.standard_normal((k, g))
        y, began = x + rng.standard_normal((k, g)), time.perf_counter()
        spacing = Spacing.of(xy)
        for start in range(0, g, 512):
            part = slice(start, start + 512)
            fisher(correlate(x[:, part], y[:, part]), spacing.effective_n(x[:, part], y[:, part]))
        print(f"\n{k:,} spots, {g:,} genes: {time.perf_counter() - began:.1f} s", end="")
    began, some = time.perf_counter(), 20
    blocks = blocks_of(xy := rng.uniform(0, 6500, (187, 2)), 600)
    loop(blocks, rng.standard_normal((187, some)), rng.standard_normal((187, some)))
    each = (time.perf_counter() - began) / some
    print(f"\n187 spots, a loop of scipy.stats.pearsonr over {RESAMPLES} resamples: {each:.2f} s a gene")


def fields(xy_um: Values, range_um: float, seed: int) -> tuple[Values, Values]:
    """Pairs of fields, (K, TRIES) each, of correlation RHO."""
    rng, k, root = np.random.default_rng(seed), len(xy_um), likeness(xy_um, range_um)
    a, b = root @ rng.standard_normal((k, TRIES)), root @ rng.standard_normal((k, TRIES))
    return a, RHO * a + np.sqrt(1 - RHO**2) * b


def likeness(xy_um: Values, range_um: float) -> Values:
    """The (K, K) root of the covariance of a field that is alike over some distance: independent values times it are one."""
    k, distance = len(xy_um), scipy.spatial.distance.cdist(xy_um, xy_um)
    covariance = np.exp(-distance / range_um) if range_um else np.eye(k)
    return np.asarray(np.linalg.cholesky(covariance + 1e-9 * np.eye(k)))


def held(low: Values, high: Values) -> float:
    """The share of intervals that hold RHO."""
    return float(np.mean((low <= RHO) & (high >= RHO)))


def measured_range(xy_um: Values, x: Values, y: Values) -> float:
    """The distance in whole pitches from which the product of both autocorrelations, mean over fields, is below ALIKE."""
    distance = np.rint(scipy.spatial.distance.cdist(xy_um, xy_um) / PITCH_UM)
    zx, zy = ((v - v.mean(axis=0)) / v.std(axis=0) for v in (x, y))
    for k in range(1, 16):
        near = (distance == k).astype(float)
        ax, ay = (np.einsum("kg,kg->g", z, near @ z) / near.sum() for z in (zx, zy))
        if (ax * ay).mean() < ALIKE:
            return k * PITCH_UM
    return 15 * PITCH_UM


def blocks_of(xy_um: Values, side_um: float) -> npt.NDArray[np.intp]:
    """The block of each spot, from 0 without gaps."""
    places = np.floor((xy_um - xy_um.min(axis=0)) / side_um).astype(int)
    return np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)


def bootstrap(blocks: npt.NDArray[np.intp], x: Values, y: Values) -> tuple[Values, Values]:
    """2.5 % and 97.5 % quantiles of the correlations of resampled blocks, from sums over blocks."""
    b = int(blocks.max()) + 1
    weights = np.random.default_rng(0).multinomial(b, np.full(b, 1 / b), RESAMPLES).astype(float)
    of_block = scipy.sparse.csr_matrix((np.ones(len(blocks)), (blocks, np.arange(len(blocks)))))
    n = weights @ np.bincount(blocks)[:, None]
    sx, sy, sxx, syy, sxy = (weights @ (of_block @ v) / n for v in (x, y, x * x, y * y, x * y))
    r = (sxy - sx * sy) / np.sqrt((sxx - sx * sx) * (syy - sy * sy))
    low, high = np.quantile(r, [0.025, 0.975], axis=0)
    return low, high


def loop(blocks: npt.NDArray[np.intp], x: Values, y: Values) -> None:
    """The same by a loop."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(blocks == b) for b in range(blocks.max() + 1)]
    for gene in range(x.shape[1]):
        for _ in range(RESAMPLES):
            chosen = np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))])
            scipy.stats.pearsonr(x[chosen, gene], y[chosen, gene])


if __name__ == "__main__":
    main()
