"""Prepares the network's inputs: checks features and coordinates of a slide's tiles, and scales the coordinates.

The features are not copied as a whole, and inputs are not changed. Context is in `context`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stpath_assets.errors import FeatureError

ROWS = 2048
"""Tiles processed at once where they do not depend on each other: enough for a fast matrix product, 12 MB of features."""


def check_inputs(
    features: npt.ArrayLike, coords: npt.ArrayLike, width: int, tile_ids: Sequence[str] | None
) -> tuple[npt.NDArray, npt.NDArray[np.float64]]:
    """Return features (N, width) unchanged, and coords (N, 2) as float64, after checking shapes, types and finite values.

    Raises `FeatureError` if they are wrong, naming tiles by `tile_ids` or else by their position.
    """
    f, xy = np.asarray(features), np.asarray(coords)
    for what, values in (("features", f), ("coords", xy)):
        if values.dtype.kind not in "fiub":
            raise FeatureError(f"{what} are of type {values.dtype}, not real numbers: give an array of floats")
    if f.ndim != 2 or f.shape[1] != width:
        raise FeatureError(
            f"features have shape {f.shape}; these weights take (tiles, {width}): embed with the encoder they were trained on"
        )
    if xy.shape != (len(f), 2):
        raise FeatureError(
            f"coords have shape {xy.shape}, not ({len(f)}, 2): give one x, y for each of the {len(f)} tiles"
        )
    if tile_ids is not None and len(tile_ids) != len(f):
        raise FeatureError(f"{len(tile_ids)} tile_ids for {len(f)} tiles: give one each")
    for what, values in (("features", f), ("coords", xy)):
        with np.errstate(over="ignore"):  # what float32 cannot hold counts as infinite
            parts = [~np.isfinite(values[r].astype(np.float32)).all(axis=1) for r in chunks(len(values), ROWS)]
        bad = np.flatnonzero(np.concatenate([np.zeros(0, bool), *parts])).tolist()
        if bad:
            some = ", ".join(str(i if tile_ids is None else tile_ids[i]) for i in bad[:5])
            raise FeatureError(
                f"{what} of {len(bad)} tiles are not finite (NaN or infinite): {some}{', …' if len(bad) > 5 else ''}; "
                "leave these tiles out or compute them again"
            )
    return f, xy.astype(np.float64)


def scaled_coordinates(xy: npt.NDArray[np.float64]) -> Tensor:
    """Scale each axis to 0 to 100, (N, 2) float32. An axis without extent becomes 0."""
    if len(xy) == 0:
        return torch.zeros(0, 2)
    offset = xy - xy.min(axis=0)
    extent = offset.max(axis=0)
    return torch.from_numpy((offset / np.where(extent > 0, extent, 1) * 100).astype(np.float32))


def chunks(n: int, size: int) -> Iterator[slice]:
    """Yield consecutive slices of `size` that cover 0 to n; the last may be shorter."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))
