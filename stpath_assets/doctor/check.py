"""The outcome of one check."""

from collections.abc import Callable
from dataclasses import dataclass

from stpath_assets.errors import StpathError


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, what was found, and what to do.

    Something to do where all is well is advice. Each of the texts is one line.
    """

    name: str
    ok: bool
    said: str
    todo: str = ""


def attempt(name: str, look: Callable[[], str]) -> Check:
    """The check that passes with what `look` says, or fails with the error that it raises; that says what to do itself."""
    try:
        return Check(name, True, look())
    except StpathError as e:
        return Check(name, False, " ".join(str(e).split()))
