"""The inner loop of resampling, compiled by numba without the GIL: weights along each axis, rounded once.

Imported late: numba is slow to import, and not needed to open a scan. `resampling` makes the weights. Products and sums are
rounded one by one in a fixed order, so that every processor gives the same results to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np

# Some readers return read-only pixels, so both kinds of arrays are compiled for.
_PIXELS = nb.types.Array(nb.uint8, 2, "C", readonly=True)
_SIGNATURE = nb.void(
    _PIXELS,
    nb.int64,
    nb.int64,
    nb.int64[::1],
    nb.float32[:, ::1],
    nb.int64[::1],
    nb.float32[:, ::1],
    nb.uint8[:, :, ::1],
)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile now, and cache the result next to the package or, if that is read-only, in the user's cache folder."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return nb.njit(_SIGNATURE, cache=True, **options)(function)
    except Exception:
        # The cache cannot be written or is damaged: compile without it. An error of the function itself would come
        # again here.
        return nb.njit(_SIGNATURE, **options)(function)


@nb.njit(inline="always")
def _rounded(value):  # type: ignore[no-untyped-def]
    return np.uint8(np.int32(min(max(np.rint(value), nb.float32(0)), nb.float32(255))))


@_compiled
def apply(pixels, x0, width, row_first, row_weights, column_first, column_weights, out):  # type: ignore[no-untyped-def]
    """Resample columns [x0, x0 + width) of interleaved rows (H, W·3) uint8 into `out` (rows, columns, 3): first rows, then
    columns.

    Output o of an axis is the sum of `weights[o, t]` (float32, a multiple of four taps) times pixel `first[o] + t`. Taps beyond
    the last pixel must have weight 0.
    """
    last, flat_out = len(pixels) - 1, out.reshape(len(out), -1)
    n_columns, column_taps = column_weights.shape
    n_in, n_out, begin = width * 3, n_columns * 3, x0 * 3
    # One output row at full width, plus room for taps of weight 0 beyond its end.
    line = np.zeros(n_in + column_taps * 3, np.float32)
    sums = np.empty(n_out, np.float32)
    for o in range(len(out)):
        w, first = row_weights[o], row_first[o]
        for t in range(0, len(w), 2):
            p, q = pixels[min(first + t, last), begin:], pixels[min(first + t + 1, last), begin:]
            a, b = w[t], w[t + 1]
            if t == 0:
                for i in range(n_in):
                    line[i] = a * nb.float32(p[i]) + b * nb.float32(q[i])
            elif a != 0 or b != 0:
                for i in range(n_in):
                    line[i] += a * nb.float32(p[i]) + b * nb.float32(q[i])
        # Unsigned: for a signed index, numba checks at each step whether it counts from the end.
        for c in range(n_columns):
            i, k = nb.uintp(column_first[c] * 3), nb.uintp(c * 3)
            v, w, x, y = column_weights[c, 0], column_weights[c, 1], column_weights[c, 2], column_weights[c, 3]
            for channel in range(3):
                j = i + nb.uintp(channel)
                near = v * line[j] + w * line[j + nb.uintp(3)]
                sums[k + nb.uintp(channel)] = near + (x * line[j + nb.uintp(6)] + y * line[j + nb.uintp(9)])
            for t in range(4, column_taps):
                v = column_weights[c, t]
                for channel in range(3):
                    sums[k + nb.uintp(channel)] += v * line[i + nb.uintp(t * 3 + channel)]
        row = flat_out[o]
        for i in range(n_out):
            row[i] = _rounded(sums[i])
