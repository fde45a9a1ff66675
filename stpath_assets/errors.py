"""The errors that a user can act on.

Each message is one line: what is wrong, with which slide or value, and what to do about it. The command line
prints it as it is; an asset turns it into a Dagster failure. Anything else that is raised is a bug and keeps
its traceback.
"""

import re

_SECRET = re.compile(r"(://[^/@\s:]*:)[^@\s]*@|(password\s*=\s*)('[^']*'|\S+)", re.IGNORECASE)


def one_line(text: str) -> str:
    """A text as one line that is safe on a terminal: control characters, of a file's name say, are written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))


def without_secrets(text: str) -> str:
    """Return a text with the passwords of URLs and connection strings replaced by `***`."""
    return _SECRET.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", text)


class StpathError(Exception):
    """Base of every error whose text is meant for the user."""


class SettingsError(StpathError):
    """A setting is missing, misspelt or contradictory."""


class SlideError(StpathError):
    """A scan cannot be opened, read or registered."""


class ScaleError(SlideError):
    """A scan's µm per pixel is missing, absurd or contradictory."""


class TissueError(StpathError):
    """A slide has no tissue that a tile could cover."""


class TilesLostError(TissueError):
    """A slide has tissue, and every tile of it was dropped."""


class FeatureError(StpathError):
    """Features are missing, of a wrong width, not finite, or from another encoder than asked for."""


class WeightsError(StpathError):
    """Model weights or their vocabulary are missing, unreadable, or do not fit each other."""


class VocabularyError(StpathError):
    """An organ, technology or gene that the model does not know."""


class SpotsError(StpathError):
    """Measured expression that cannot be read or does not fit its slide."""


class StorageError(StpathError):
    """A table's file is missing, damaged, or could not be written."""


class QueryError(StpathError):
    """An SQL query that is wrong or that would write."""


class ServingError(StpathError):
    """The warm encoder on a Ray cluster cannot be served, or cannot be reached."""


class EncoderMismatchError(ServingError):
    """The encoder that is served is not the one that is asked for."""
