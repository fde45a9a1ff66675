"""Prediction: log1p expression of each tile from its features, by STPath.

The fourth stage of the data flow. It reads features and coordinates, and knows nothing about pixels or measurements. Names are
imported on first use, so that organs and genes can be looked up without torch.
"""

from typing import TYPE_CHECKING, Any

from stpath_assets.prediction.context import Context
from stpath_assets.vocabulary.genes import Vocabulary

if TYPE_CHECKING:
    from stpath_assets.prediction.predict import (
        ModelChoice,
        predict_expression,
        read_prediction,
        store_prediction,
    )
    from stpath_assets.prediction.stpath import STPath

__all__ = [
    "Context",
    "ModelChoice",
    "STPath",
    "Vocabulary",
    "predict_expression",
    "read_prediction",
    "store_prediction",
]


def __getattr__(name: str) -> Any:
    if name == "STPath":
        from stpath_assets.prediction.stpath import STPath

        return STPath
    if name in __all__:
        from stpath_assets.prediction import predict

        return getattr(predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
