"""What all kinds of fitted predictors have in common."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


class Predictor(Protocol):
    """Predicts G genes from features (N, D), as (N, G). `arrays` are all it consists of."""

    def arrays(self) -> dict[str, npt.NDArray]: ...  # noqa: D102
    def predict(self, features: Matrix) -> Matrix: ...  # noqa: D102


@dataclass(frozen=True)
class Training:
    """What a predictor is fitted to: features (K, D) of tiles, measured values (K, G) of `genes` on one scale, and the depth of
    each spot, log(1 + sum of counts), (K,).
    """

    features: Matrix
    values: npt.NDArray[np.float64]
    log_depth: npt.NDArray[np.float64]
    genes: list[str]
