"""Errors that a user can act on.

Each message is one line: what is wrong, with which slide or value, and what to do. The command line prints it as it is; an asset
turns it into a Dagster failure. Any other exception is a bug and keeps its traceback.
"""

import errno
import re
from collections.abc import Iterator

_OF_MACHINE = (
    (
        r"No space left on device|database or disk is full|Disk quota exceeded",
        "the disk is full; free some space and run it again",
    ),
    (
        r"Input/output error|disk I/O error",
        "the disk cannot be read or written (I/O error); check it, and run it again",
    ),
    (r"Read-only file system|readonly database", "the disk is read-only; make it writable, or choose another --home"),
    (r"Too many open files", "too many files are open; raise the limit (ulimit -n), and run it again"),
)
"""How the operating system, SQLite and DuckDB say that the machine failed, and what to tell the user."""

_SECRET = re.compile(
    r"(?P<user>://[^/@\s:]*:)[^@\s]*@|(?P<only>https?://)[^/@\s:]+@|(?P<password>password\s*=\s*)('[^']*'|\S+)"
    r"|(?P<name>[?&][^=&\s]*(?:signature|credential|token|secret|password|passwd|api_?key|access_?key|\bsig)=)[^&\s'\")]+",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """Return a text as one line that is safe on a terminal: control characters, for example of a file name, are escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in " ".join(text.split()))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def describe(error: BaseException, most: int = 160) -> str:
    """Return an exception as one line: its type, and up to `most` characters of its text."""
    text = one_line(str(error))[:most]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failure_of_machine(error: BaseException | str) -> str | None:
    """Return one line if an error, or its text, is a failure of the machine, such as a full disk; else None."""
    for text in [error] if isinstance(error, str) else map(_os_text, _causes(error)):
        for pattern, advice in _OF_MACHINE:
            if re.search(pattern, text):
                return advice
    return None


def explain(error: BaseException, report: str = "report it") -> str:
    """Return an exception that is not meant for the user as one line: a failure of the machine, or a bug to report."""
    return failure_of_machine(error) or f"{describe(error, 500)} (a bug; {report})"


def _os_text(error: BaseException) -> str:
    known = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE}
    if isinstance(error, OSError):  # a file's name may contain anything
        return error.strerror or "" if error.errno in known else ""
    return str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def may_pass(error: BaseException) -> bool:
    """Return whether the same work may succeed later without a change: a network or server that failed, a full memory."""
    if isinstance(error, StpathError):
        return error.may_pass
    # torch's own class for a full GPU; comparing names spares loading torch.
    return isinstance(error, MemoryError | ConnectionError | TimeoutError) or type(error).__name__ == "OutOfMemoryError"


def without_secrets(text: str) -> str:
    """Return a text with the passwords and tokens of URLs and connection strings replaced by `***`."""

    def hidden(m: re.Match[str]) -> str:
        before = m["user"] or m["only"]
        return f"{before}***@" if before else f"{m['password'] or m['name']}***"

    return _SECRET.sub(hidden, text)


class StpathError(Exception):
    """Base class of every error whose text is meant for the user."""

    may_pass = False
    """Whether the same work may succeed later without a change, as when a server did not answer."""

    def __init__(self, message: str = "") -> None:
        # Messages quote files and their names, which must not steer a terminal or a log, and URLs, which may hold a secret.
        shown = without_secrets(message)
        super().__init__("".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in shown))


class SettingsError(StpathError):
    """A setting is missing, misspelt or contradictory."""


class SlideError(StpathError):
    """A scan cannot be opened, read or registered."""


class SameContentError(SlideError):
    """A scan has the same content as a registered one at another path."""


class DownloadError(StpathError):
    """A public file that cannot be fetched, or is not the expected one."""


class ManifestError(StpathError):
    """A manifest or sidecar that cannot be read, or says something wrong."""


class ScaleError(SlideError):
    """A scan's µm per pixel is missing, absurd or contradictory."""


class TissueError(StpathError):
    """A slide has no tissue that a tile could cover."""


class TilesLostError(TissueError):
    """A slide has tissue, but all of its tiles were dropped."""


class FeatureError(StpathError):
    """Features are missing, not finite, of a wrong width, or from another encoder than expected."""


class WeightsError(StpathError):
    """Model weights or their vocabulary are missing, unreadable, or do not fit each other."""


class VocabularyError(StpathError):
    """An organ, technology or gene that the model does not know."""


class SpotsError(StpathError):
    """Measured expression that cannot be read or does not fit its slide."""


class LeakageError(StpathError):
    """A predictor was fitted to the slide that it is to predict, or to another one of the same patient."""


class StorageError(StpathError):
    """A table's file is missing, damaged, or could not be written."""


class ImportFileError(StpathError):
    """A file to import that is wrong: which file, row and column."""


class QueryError(StpathError):
    """An SQL query that is wrong or that would write."""


class ExportError(StpathError):
    """An export that cannot or must not be written where it should go, or that its format cannot hold."""


class ServingError(StpathError):
    """The encoder cannot be served, or the served encoder cannot be reached."""


class EncoderMismatchError(ServingError):
    """The served encoder is not the expected one."""
