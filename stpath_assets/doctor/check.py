"""The result of one check."""

from collections.abc import Callable
from dataclasses import dataclass

from stpath_assets.errors import StpathError, one_line


@dataclass(frozen=True)
class Check:
    """A check: its name, whether it passed, what was found, and what to do.

    If it passed, `todo` is advice. Each text is one line.
    """

    name: str
    ok: bool
    said: str
    todo: str = ""


def attempt(name: str, look: Callable[[], str]) -> Check:
    """Return a check that passes with the result of `look`, or fails with its error, which says what to do."""
    try:
        return Check(name, True, look())
    except StpathError as e:
        return Check(name, False, one_line(str(e)))
