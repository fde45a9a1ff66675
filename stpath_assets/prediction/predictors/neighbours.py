"""The mean of the training tiles that look most alike."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stpath_assets.prediction.predictors.base import Matrix, Training

NEIGHBOURS = 20
_AXES = 50


@dataclass(frozen=True)
class Neighbours:
    """Training tiles (K, A) on their principal axes (D, A), after centring by `mean` and division by `spread` (D,), and their
    values (K, G).
    """

    mean: Matrix
    spread: Matrix
    axes: Matrix
    tiles: Matrix
    values: Matrix

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it consists of."""
        return {n: getattr(self, n) for n in ("mean", "spread", "axes", "tiles", "values")}

    def predict(self, features: Matrix) -> Matrix:
        """Return (N, G) from features (N, D)."""
        from sklearn.neighbors import KNeighborsRegressor

        fitted = KNeighborsRegressor(min(NEIGHBOURS, len(self.tiles))).fit(self.tiles, self.values)
        return np.asarray(fitted.predict((features - self.mean) / self.spread @ self.axes), np.float32)


def fit_neighbours(training: Training) -> Neighbours:
    """Keep the training tiles on their first principal axes."""
    from sklearn.decomposition import PCA

    mean, spread = training.features.mean(axis=0), training.features.std(axis=0)
    spread = np.where(spread > 0, spread, 1).astype(np.float32)
    z = (training.features - mean) / spread
    axes = PCA(min(_AXES, *z.shape), svd_solver="full").fit(z).components_.T.astype(np.float32)
    return Neighbours(mean, spread, axes, (z @ axes).astype(np.float32), training.values.astype(np.float32))
