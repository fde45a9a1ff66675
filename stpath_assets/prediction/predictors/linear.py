"""Predictors that are linear in the features: ridge regression, and what it is to be compared with."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stpath_assets.prediction.predictors.base import Matrix, Training

ALPHAS = np.logspace(-1, 6, 15)
"""Penalties among which leave-one-out chooses, for standardized features."""


@dataclass(frozen=True)
class Linear:
    """`features @ weights + bias`, weights (D, G), bias (G,)."""

    weights: Matrix
    bias: Matrix

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it consists of."""
        return {"weights": self.weights, "bias": self.bias}

    def predict(self, features: Matrix) -> Matrix:
        """Return (N, G) from features (N, D)."""
        return (features.astype(np.float64) @ self.weights + self.bias).astype(np.float32)


@dataclass(frozen=True)
class ThroughDepth:
    """A line for each gene through the predicted log depth: `(features @ weights) * slope + offset`, weights (D,), slope and
    offset (G,).
    """

    weights: Matrix
    slope: Matrix
    offset: Matrix

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it consists of."""
        return {"weights": self.weights, "slope": self.slope, "offset": self.offset}

    def predict(self, features: Matrix) -> Matrix:
        """Return (N, G) from features (N, D)."""
        depth = features.astype(np.float64) @ self.weights
        return (depth[:, None] * self.slope + self.offset).astype(np.float32)


@dataclass(frozen=True)
class Mean:
    """The mean (G,) of each gene, whatever the tile."""

    mean: Matrix

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that it consists of."""
        return {"mean": self.mean}

    def predict(self, features: Matrix) -> Matrix:
        """Return (N, G) for features (N, D)."""
        return np.repeat(self.mean[None], len(features), axis=0)


def fit_ridge(training: Training) -> Linear:
    """Fit ridge regression on standardized features; the penalty is chosen by leave-one-out, one for all genes."""
    weights, bias = _ridge(training.features, training.values)
    return Linear(weights.astype(np.float32), bias.astype(np.float32))


def fit_depth(training: Training) -> ThroughDepth:
    """Fit the depth by ridge regression, and each gene as a line through the predicted depth: what it is worth to know where
    there is much RNA, and nothing else.
    """
    weights, bias = _ridge(training.features, training.log_depth[:, None])
    predicted = training.features.astype(np.float64) @ weights + bias  # (K, 1)
    centred, mean = predicted - predicted.mean(), training.values.mean(axis=0)
    square = float((centred**2).sum())
    slope = (centred * (training.values - mean)).sum(axis=0) / square if square > 0 else np.zeros_like(mean)
    offset = mean + slope * (bias[0] - predicted.mean())
    return ThroughDepth(weights[:, 0].astype(np.float32), slope.astype(np.float32), offset.astype(np.float32))


def fit_mean(training: Training) -> Mean:
    """Predict each gene's mean over the training spots, whatever the tile. Its r is undefined; R² and MSE are not."""
    return Mean(training.values.mean(axis=0).astype(np.float32))


def _ridge(
    features: Matrix, values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weights (D, G) and bias (G,) for the features as they are."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    fitted = RidgeCV(alphas=ALPHAS).fit(scaler.transform(features.astype(np.float64)), values)
    weights = np.asarray(fitted.coef_, np.float64).reshape(values.shape[1], -1).T / scaler.scale_[:, None]
    return weights, np.asarray(fitted.intercept_, np.float64).reshape(-1) - scaler.mean_ @ weights
