"""The inner loop of resampling, compiled: weights along each axis, rounded once, outside Python's lock.

Imported late: numba is slow to import, and not needed to open a scan. `resampling` says what the weights are. Floating point is
strict, sums are fused multiply-adds in a fixed order: every processor gives the same results to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

# Pixels of some readers are read-only; those that can be written are taken as well.
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
    """Compiles now and keeps the result on disk: beside the package or, where that is read-only, in the user's cache folder."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return nb.njit(_SIGNATURE, cache=True, **options)(function)
    except Exception:
        # No folder that can be written, a full disk, a damaged file: the cache is not needed. An error of the
        # function's own comes again here.
        return nb.njit(_SIGNATURE, **options)(function)


_LANES = 8
_FLOATS, _BYTES = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.IntType(8), _LANES)


class _Vectors:
    """Writes vectors of eight into a function's code, since the compiler makes none of three channels.

    Arrays are named by their place among the function's arguments, positions are values of the code. Nothing checks that
    they lie inside the arrays.
    """

    def __init__(self, target, builder, signature, values):  # type: ignore[no-untyped-def]
        self._builder = builder
        self._data = {
            n: make_array(type_)(target, builder, values[n]).data
            for n, type_ in enumerate(signature.args)
            if isinstance(type_, nb.types.Array)
        }

    def plus(self, position, further):  # type: ignore[no-untyped-def]
        """A position and so many elements, a number or a value."""
        return self._builder.add(position, further if isinstance(further, ir.Value) else position.type(further))

    def element(self, array, position):  # type: ignore[no-untyped-def]
        """One element."""
        return self._builder.load(self._builder.gep(self._data[array], [position]))

    def load(self, array, position, type_=_FLOATS):  # type: ignore[no-untyped-def]
        """Eight elements."""
        return self._builder.load(self._at(array, position, type_), align=1 if type_ is _BYTES else 4)

    def store(self, vector, array, position):  # type: ignore[no-untyped-def]
        """Keeps eight elements."""
        self._builder.store(vector, self._at(array, position, _FLOATS), align=4)

    def eight_times(self, number):  # type: ignore[no-untyped-def]
        """A vector of one number."""
        one = self._builder.insert_element(_FLOATS(ir.Undefined), number, ir.IntType(32)(0))
        return self._ordered(one, one, [0] * _LANES)

    def times_plus(self, a, b, c):  # type: ignore[no-untyped-def]
        """a · b + c, rounded once."""
        signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        # llvmlite's own is for single numbers.
        return self._builder.call(get_or_insert_function(self._builder.module, signature, "llvm.fma.v8f32"), [a, b, c])

    def transposed(self, rows):  # type: ignore[no-untyped-def]
        """Transposes an 8 × 8 block of eight vectors: interleaves each with the fourth after it, three times."""
        for _ in range(3):
            rows = [half for r in range(4) for half in self._zipped(rows[r], rows[r + 4])]
        return rows

    def _zipped(self, a, b):  # type: ignore[no-untyped-def]
        both = [lane for n in range(_LANES) for lane in (n, _LANES + n)]
        return self._ordered(a, b, both[:_LANES]), self._ordered(a, b, both[_LANES:])

    def _ordered(self, a, b, lanes):  # type: ignore[no-untyped-def]
        return self._builder.shuffle_vector(a, b, ir.VectorType(ir.IntType(32), _LANES)(lanes))

    def _at(self, array, position, type_):  # type: ignore[no-untyped-def]
        return self._builder.bitcast(self._builder.gep(self._data[array], [position]), type_.as_pointer())


@intrinsic
def _read_across(context, across, k, pixels, starts, i):  # type: ignore[no-untyped-def]
    """across[k + 8v + r] = pixels[starts[r] + i + v] for v and r from 0 to 7: eight values of eight rows."""

    def generate(target, builder, signature, values):  # type: ignore[no-untyped-def]
        v, (_, k, _, _, i) = _Vectors(target, builder, signature, values), values
        rows = [v.load(2, v.plus(i, v.element(3, i.type(r))), _BYTES) for r in range(_LANES)]
        for n, column in enumerate(v.transposed(rows)):
            v.store(builder.uitofp(column, _FLOATS), 0, v.plus(k, _LANES * n))
        return target.get_dummy_value()

    return nb.void(across, k, pixels, starts, i), generate


@intrinsic
def _weigh(context, sums, k, across, i, weights, w, adds):  # type: ignore[no-untyped-def]
    """One output pixel of eight rows: its three values are sums[k : k+8] and the two times eight behind.

    Value c is the sum over t < 4 of weights[w+t] times the eight of across[i + 8(3t+c)], added to what is there if `adds`.
    """

    def generate(target, builder, signature, values):  # type: ignore[no-untyped-def]
        v, (_, k, _, i, _, w, adds) = _Vectors(target, builder, signature, values), values
        weights = [v.eight_times(v.element(4, v.plus(w, t))) for t in range(4)]
        for c in range(3):
            place = v.plus(k, _LANES * c)
            total = builder.select(adds, v.load(0, place), _FLOATS([0.0] * _LANES))
            for t in range(4):
                total = v.times_plus(weights[t], v.load(2, v.plus(i, _LANES * (3 * t + c))), total)
            v.store(total, 0, place)
        return target.get_dummy_value()

    return nb.void(sums, k, across, i, weights, w, adds), generate


@intrinsic
def _write_back(context, lines, places, i, sums, k):  # type: ignore[no-untyped-def]
    """lines[places[r] + i + v] = sums[k + 8v + r] for v and r from 0 to 7."""

    def generate(target, builder, signature, values):  # type: ignore[no-untyped-def]
        v, (_, _, i, _, k) = _Vectors(target, builder, signature, values), values
        for r, row in enumerate(v.transposed([v.load(3, v.plus(k, _LANES * n)) for n in range(_LANES)])):
            v.store(row, 0, v.plus(i, v.element(1, i.type(r))))
        return target.get_dummy_value()

    return nb.void(lines, places, i, sums, k), generate


@intrinsic
def _fma(context, a, b, c):  # type: ignore[no-untyped-def]
    """a · b + c of float32, rounded once. The compiler may not fuse by itself what is written as two operations."""

    def generate(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.fma(*values)

    return nb.float32(nb.float32, nb.float32, nb.float32), generate


@nb.njit(inline="always")
def _rounded(value):  # type: ignore[no-untyped-def]
    return np.uint8(np.int32(min(max(np.rint(value), nb.float32(0)), nb.float32(255))))


@_compiled
def apply(pixels, x0, width, row_first, row_weights, column_first, column_weights, out):  # type: ignore[no-untyped-def]
    """Columns [x0, x0 + width) of interleaved rows (H, W·3) uint8 into `out` (rows, columns, 3), first columns, then rows.

    Output o of an axis is the sum of `weights[o, t]` (float32, a multiple of four taps) times pixel `first[o] + t`; taps
    beyond the last pixel must weigh nothing. Of rows, `first` must not fall.
    """
    height, row_values = pixels.shape
    flat_pixels, flat_weights, flat_out = pixels.reshape(-1), column_weights.reshape(-1), out.reshape(len(out), -1)
    n_rows, row_taps = row_weights.shape
    n_columns, column_taps = column_weights.shape
    n_in, n_out = width * 3, n_columns * 3
    # Eight rows side by side, value by value, with what lies beyond the last pixel, which taps that weigh nothing read.
    across = np.empty((n_in + column_taps * 3) * 8, np.float32)
    across[n_in * 8 :] = 0
    padded = (n_out + 7) // 8 * 8
    sums = np.empty(padded * 8, np.float32)
    # Rows whose columns are done, as many as one output needs and eight come at once: row y lies at y modulo their number.
    kept = (row_taps + 14) // 8 * 8
    lines = np.empty((kept, padded), np.float32)
    flat_lines = lines.reshape(-1)
    starts, places = np.empty(8, np.uintp), np.empty(8, np.uintp)
    whole = n_in // 8 * 8
    following = row_first[0]
    for o in range(n_rows):
        first = row_first[o]
        following = max(following, first)
        while following < first + row_taps:
            for r in range(8):
                starts[r] = nb.uintp(min(following + r, height - 1) * row_values + x0 * 3)
                places[r] = nb.uintp((following + r) % kept * padded)
            for i in range(0, whole, 8):
                _read_across(across, nb.uintp(i * 8), flat_pixels, starts, nb.uintp(i))
            for i in range(whole, n_in):
                for r in range(8):
                    across[i * 8 + r] = nb.float32(flat_pixels[starts[r] + nb.uintp(i)])
            for c in range(n_columns):
                i, w = nb.uintp(column_first[c] * 24), nb.uintp(c * column_taps)
                for t in range(0, column_taps, 4):
                    _weigh(sums, nb.uintp(c * 24), across, i + nb.uintp(t * 24), flat_weights, w + nb.uintp(t), t > 0)
            for i in range(0, padded, 8):
                _write_back(flat_lines, places, nb.uintp(i), sums, nb.uintp(i * 8))
            following += 8
        row = flat_out[o]
        w = row_weights[o]
        p, q, r, s = (
            lines[first % kept],
            lines[(first + 1) % kept],
            lines[(first + 2) % kept],
            lines[(first + 3) % kept],
        )
        if row_taps == 4:
            for i in range(n_out):
                row[i] = _rounded(_fma(w[3], s[i], _fma(w[2], r[i], _fma(w[1], q[i], w[0] * p[i]))))
        else:
            total = sums[:n_out]
            for i in range(n_out):
                total[i] = _fma(w[3], s[i], _fma(w[2], r[i], _fma(w[1], q[i], w[0] * p[i])))
            for t in range(4, row_taps):
                p = lines[(first + t) % kept]
                for i in range(n_out):
                    total[i] = _fma(w[t], p[i], total[i])
            for i in range(n_out):
                row[i] = _rounded(total[i])
