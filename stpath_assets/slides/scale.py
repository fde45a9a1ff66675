"""Chooses a scan's scale: the file's or the user's, never a guess.

Pure functions of numbers. Reading the scale from a file belongs in `formats`. Scales are µm per pixel at level 0, of x and of y;
pixels need not be square.
"""

import math

from stpath_assets.errors import ScaleError

Mpp = tuple[float, float]
"""A scan's scale along x and along y, µm per pixel at level 0."""

MIN_MPP, MAX_MPP = 0.05, 5.0
"""Range of microscope scans. 96 dpi, the default of image viewers, would be 264 µm per pixel."""

MAX_CONTRADICTION = 0.05
"""Relative difference between the user's and the file's scale above which there is a warning."""

SQUARE = 0.01
"""Relative difference between the two sides of a pixel above which there is a warning."""

UM_TIMES_POWER = 10.0
"""Scale of an N× objective times N, µm per pixel: 0.5 at 20×, 0.25 at 40×."""

MAX_OFF_POWER = 1.6
"""Factor between objective and scale above which there is a warning. Camera adapters stay below; the next objective is a
factor 2 away.
"""


def of_file(mpp: Mpp | None) -> tuple[Mpp | None, str]:
    """Return the file's scale, or None and why it cannot be used.

    `mpp` is the file's value for x and y, unchecked.
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
    """Return a user's scale as x and y; one number means square pixels."""
    if mpp is None or isinstance(mpp, tuple):
        return mpp
    return float(mpp), float(mpp)


def mean(mpp: Mpp) -> float:
    """Return the mean of x and y."""
    return (mpp[0] + mpp[1]) / 2


def text(mpp: Mpp, form: str = ".4g") -> str:
    """Format a scale as `0.25`, or `0.25 by 0.5`."""
    x, y = (format(v, form) for v in mpp)
    return x if x == y else f"{x} by {y}"


def choose(name: str, given: Mpp | None, in_file: Mpp | None, complaint: str) -> tuple[Mpp, str, list[str]]:
    """Return the scale to use, its source (`file` or `user`), and warnings.

    The user's value wins. Raises `ScaleError` if it is outside the range, or if there is none.
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
    """Yield a warning if pixels are not square: few scanners make such pixels, and a wrong tag looks the same."""
    if abs(mpp[0] - mpp[1]) <= SQUARE * max(mpp):
        return []
    return [
        f"{name}: pixels are not square, {text(mpp)} µm: tiles are resampled to square ones; "
        "check the scale, and give the right one with --mpp"
    ]


def against_objective(name: str, mpp: Mpp, source: str, power: float | None) -> list[str]:
    """Yield a warning if the scale of x or y contradicts the objective in the file."""
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
    """Return a file's objective power, or None if it has no valid one."""
    try:
        power = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return power if math.isfinite(power) and 1 <= power <= 150 else None


def _is_microscopes(mpp: float) -> bool:
    return math.isfinite(mpp) and MIN_MPP <= mpp <= MAX_MPP
