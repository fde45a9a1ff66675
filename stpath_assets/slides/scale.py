"""Which scale of a scan is believed: the file's or the user's, never a guess.

Pure functions of numbers; how a file says its scale belongs in `formats`. Scales are µm per pixel at level 0, of x and
of y: pixels need not be square.
"""

import math

from stpath_assets.errors import ScaleError

Mpp = tuple[float, float]
"""A scan's scale along x and along y, µm per pixel at level 0."""

MIN_MPP, MAX_MPP = 0.05, 5.0
"""Scales outside are no microscope scan: 96 dpi, a viewer's default, reads as 264 µm per pixel."""

MAX_CONTRADICTION = 0.05
"""How far the user's scale may lie from the file's before it is worth a warning, relative."""

SQUARE = 0.01
"""How far the two sides of a pixel may differ before it is worth a warning, relative to the longer."""

UM_TIMES_POWER = 10.0
"""A scan through an N-times objective has about 10/N µm per pixel: 0.5 at 20x, 0.25 at 40x."""

MAX_OFF_POWER = 1.6
"""Factor that camera adapters put between objective and scale; the next objective is a factor 2 away."""


def of_file(mpp: Mpp | None) -> tuple[Mpp | None, str]:
    """The file's scale, or None and why there is none that can be believed.

    `mpp` is what the file says of its x and y, unchecked.
    """
    if mpp is None:
        return None, "the file does not say its scale (mpp)"
    x, y = mpp
    if not all(_is_microscopes(v) for v in mpp):
        wrong = y if _is_microscopes(x) else x
        return None, (
            f"the file's scale, {wrong:.4g} µm per pixel, is outside the range of microscope scans ({MIN_MPP:g} to {MAX_MPP:g}): "
            "most likely a viewer's 72 or 96 dpi, not an mpp"
        )
    return mpp, ""


def given_as(mpp: float | Mpp | None) -> Mpp | None:
    """What a user gives: one number for square pixels, or x and y."""
    if mpp is None or isinstance(mpp, tuple):
        return mpp
    return float(mpp), float(mpp)


def mean(mpp: Mpp) -> float:
    """One number for a scan: the mean of x and y."""
    return (mpp[0] + mpp[1]) / 2


def text(mpp: Mpp, form: str = ".4g") -> str:
    """`0.25`, or `0.25 by 0.5`."""
    x, y = (format(v, form) for v in mpp)
    return x if x == y else f"{x} by {y}"


def choose(name: str, given: Mpp | None, in_file: Mpp | None, complaint: str) -> tuple[Mpp, str, list[str]]:
    """The scale that is used, its source (`file` or `user`), and warnings.

    What the user gives wins. Raises `ScaleError` where it is absurd, or where neither says any.
    """
    if given is not None:
        if not all(map(_is_microscopes, given)):
            raise ScaleError(
                f"{name}: --mpp {text(given, 'g')} is outside the range of microscope scans; give µm per pixel at level 0, "
                f"{MIN_MPP:g} to {MAX_MPP:g}"
            )
        if in_file is not None and any(abs(g - f) > MAX_CONTRADICTION * f for g, f in zip(given, in_file, strict=True)):
            return given, "user", [
                f"{name}: the given mpp {text(given, 'g')} contradicts the file's {text(in_file)}; the given one is used"
            ]  # fmt: skip
        return given, "user", []
    if in_file is None:
        raise ScaleError(
            f"{name}: {complaint}; give µm per pixel at level 0 with --mpp (a 20x scan has about 0.5, a 40x about 0.25)"
        )
    return in_file, "file", []


def against_square(name: str, mpp: Mpp) -> list[str]:
    """A warning where pixels are not square: few scanners make such, and a wrong tag looks the same."""
    if abs(mpp[0] - mpp[1]) <= SQUARE * max(mpp):
        return []
    return [
        f"{name}: pixels are not square, {text(mpp)} µm: tiles are resampled to square ones; "
        "check the scale, and give the right one with --mpp"
    ]


def against_objective(name: str, mpp: Mpp, source: str, power: float | None) -> list[str]:
    """A warning where the scale, of x or of y, and the objective that the file names cannot both be right."""
    if power is None:
        return []
    expected = UM_TIMES_POWER / power
    if all(1 / MAX_OFF_POWER <= v / expected <= MAX_OFF_POWER for v in mpp):
        return []
    whose = "the given" if source == "user" else "the file's"
    return [
        f"{name}: {whose} mpp {text(mpp)} contradicts its {power:g}x objective, which has about {expected:.2g}; "
        "check it, and give the right one with --mpp"
    ]


def power_of(value: object) -> float | None:
    """A file's objective power, or None where it says nothing that an objective can be."""
    try:
        power = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return power if math.isfinite(power) and 1 <= power <= 150 else None


def _is_microscopes(mpp: float) -> bool:
    return math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP
