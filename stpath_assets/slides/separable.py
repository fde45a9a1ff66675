"""The inner loop of resampling, compiled: weights along each axis, rounded once, outside Python's lock.

Imports numba, so whoever only opens a scan need not wait for it; `resampling` says what the weights are. Floating point is
strict: every processor adds the same products in the same order, and results are the same to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

# Pixels of some readers are read-only; those that can be written are taken as well.
_PIXELS = nb.types.Array(nb.uint8, 2, "C", readonly=True)
_SIGNATURE = nb.uint8[:, ::1](
    _PIXELS, nb.int64, nb.int64, nb.int64[::1], nb.float32[:, ::1], nb.int64[::1], nb.float32[:, ::1]
)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiles now and keeps the result on disk: beside the package or, where that is read-only, in the user's cache folder."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return nb.njit(_SIGNATURE, cache=True, **options)(function)
    except Exception:
        # No folder that can be written, a full disk, a damaged file: the cache is not needed. An error of the
        # function's own comes again here.
        return nb.njit(_SIGNATURE, **options)(function)


_FOUR, _INT = ir.VectorType(ir.FloatType(), 4), ir.IntType(32)


@intrinsic
def _four_taps(context, sums, k, line, i, weights, w, is_first):  # type: ignore[no-untyped-def]
    """sums[k:k+4] = the sum over t < 4 of weights[w+t] · line[i+3t : i+3t+4], added to what is there unless `is_first`.

    Written as vectors, since the compiler makes none of three channels. A vector has room for one more, the next pixel's
    first, so the caller goes from left to right and overwrites it. Nothing checks that positions lie inside the arrays.
    """

    def generate(target, builder, signature, values):  # type: ignore[no-untyped-def]
        def at(array, position):  # type: ignore[no-untyped-def]
            return builder.gep(make_array(signature.args[array])(target, builder, values[array]).data, [position])

        def vector(pointer):  # type: ignore[no-untyped-def]
            return builder.bitcast(pointer, _FOUR.as_pointer())

        total = builder.load(vector(at(0, values[1])), align=4)
        total = builder.select(values[6], ir.Constant(_FOUR, [0.0] * 4), total)
        for t in range(4):
            weight = builder.load(builder.gep(at(4, values[5]), [_INT(t)]))
            one = builder.insert_element(ir.Constant(_FOUR, ir.Undefined), weight, _INT(0))
            four = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT, 4), [0] * 4))
            pixel = builder.load(vector(builder.gep(at(2, values[3]), [_INT(3 * t)])), align=4)
            total = builder.fadd(total, builder.fmul(four, pixel))
        builder.store(total, vector(at(0, values[1])), align=4)
        return target.get_dummy_value()

    return nb.void(sums, k, line, i, weights, w, is_first), generate


@_compiled
def apply(pixels, x0, width, row_first, row_weights, column_first, column_weights):  # type: ignore[no-untyped-def]
    """Columns [x0, x0 + width) of interleaved rows (H, W·3) uint8 to (rows, columns·3) uint8, first rows, then columns.

    Output o of an axis is the sum of `weights[o, t]` (float32, a multiple of four taps) times pixel `first[o] + t`; taps
    beyond the last pixel must weigh nothing.
    """
    last, flat_weights = pixels.shape[0] - 1, column_weights.reshape(-1)
    n_rows, row_taps = row_weights.shape
    n_columns, column_taps = column_weights.shape
    begin, end = x0 * 3, (x0 + width) * 3
    out = np.empty((n_rows, n_columns * 3), np.uint8)
    # With what lies beyond the last pixel, which taps that weigh nothing read.
    line = np.zeros((width + column_taps) * 3, np.float32)
    inner = line[: width * 3]
    sums = np.zeros(n_columns * 3 + 1, np.float32)
    for o in range(n_rows):
        inner[:] = 0
        for t in range(0, row_taps, 4):
            y = row_first[o] + t
            p, q = pixels[min(y, last), begin:end], pixels[min(y + 1, last), begin:end]
            r, s = pixels[min(y + 2, last), begin:end], pixels[min(y + 3, last), begin:end]
            w0, w1, w2, w3 = row_weights[o, t], row_weights[o, t + 1], row_weights[o, t + 2], row_weights[o, t + 3]
            for i in range(len(inner)):
                inner[i] = (
                    inner[i]
                    + w0 * nb.float32(p[i])
                    + w1 * nb.float32(q[i])
                    + w2 * nb.float32(r[i])
                    + w3 * nb.float32(s[i])
                )
        for c in range(n_columns):
            for t in range(0, column_taps, 4):
                i = nb.uintp((column_first[c] + t) * 3)
                _four_taps(sums, nb.uintp(3 * c), line, i, flat_weights, nb.uintp(c * column_taps + t), t == 0)
        row = out[o]
        for i in range(n_columns * 3):
            row[i] = np.uint8(np.int32(min(max(np.rint(sums[i]), nb.float32(0)), nb.float32(255))))
    return out
