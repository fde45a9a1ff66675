"""Files of the Hugging Face hub, fetched by its own client, with one line of advice for each way a download fails.

HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT work as in any other program. Reading the files belongs in `files`.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stpath_assets.errors import WeightsError, describe

_ADVICE: tuple[tuple[str, int | None, bool, str], ...] = (
    # class of the error, or one of its bases; HTTP status, None for any; whether it may pass;
    # what is wrong and what to do first
    ("RevisionNotFoundError", None, False, "the hub has no such revision; install a newer version of this package"),
    ("LocalEntryNotFoundError", None, True, "the hub cannot be reached (no network?); check the network and proxy{gated}"),
    ("EntryNotFoundError", None, False, "has no file {file} at this revision; install a newer version of this package"),
    ("GatedRepoError", 401, False, "access refused, the repository is gated and no valid token was sent; {ask}, then {login}"),
    ("GatedRepoError", None, False, "the account of your token has no access; {ask}, and check that HF_TOKEN is its token"),
    ("RepositoryNotFoundError", None, False, "access refused, or there is no such repository; {find}"),
    ("HfHubHTTPError", 401, False, "the hub refuses the token (401); it is wrong or has expired: {login}"),
    ("HfHubHTTPError", 403, False, "the hub refuses access (403); let the token read gated repositories, or {login}"),
    ("HfHubHTTPError", None, True, "the hub answers with an error ({status}); try again later"),
    ("OfflineModeIsEnabled", None, False, "HF_HUB_OFFLINE is set; fetch it once without{gated}"),
    ("FileMetadataError", None, False, "the server is no Hugging Face hub; check HF_ENDPOINT and the network's proxy"),
    ("PermissionError", None, False, "the hub's cache cannot be written ({error}); set HF_HOME to a folder that can"),
)  # fmt: skip
"""The first line that matches holds."""

_BROKEN_OFF = "the download broke off ({error}); check the network and run it again, it goes on where it stopped"


_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """A file of a hub repository at a revision, and the setting that names a local copy instead.

    `revision` is a commit, 40 hexadecimal digits: a branch may hold another file tomorrow. Without one, nothing is downloaded;
    `revision_setting` names it. `sha256` is the file's, if it is known.
    """

    repository: str
    filename: str
    revision: str | None
    setting: str
    gated: bool = False
    revision_setting: str = ""
    sha256: str | None = None


def fetch(hub: HubFile) -> Path:
    """Return the file in the hub's cache, downloading it if needed. Raises `WeightsError` with the steps to take."""
    from huggingface_hub import hf_hub_download

    if hub.revision is None or not _COMMIT.fullmatch(hub.revision):
        raise WeightsError(
            f"{hub.filename} of {hub.repository}: no commit to download is known, and a branch may change; set "
            f"{hub.revision_setting or 'the revision'} to the 40 digits of a commit that you trust, or put the file on this "
            f"machine and set {hub.setting} to its path"
        )
    try:
        return Path(hf_hub_download(hub.repository, hub.filename, revision=hub.revision))
    except Exception as e:  # the client's transport raises its own types, which differ between versions
        by_hand = f"or put {hub.filename} on this machine and set {hub.setting} to its path"
        reason, passes = _reason(e, hub)
        error = WeightsError(f"{hub.repository} at {hub.revision[:12]}: {reason}, {by_hand}")
        error.may_pass = passes
        raise error from e


def find_cached(hub: HubFile) -> Path | None:
    """Return the file in the hub's cache, or None if it has not been fetched. Does not use the network."""
    from huggingface_hub import try_to_load_from_cache

    if hub.revision is None:
        return None
    path = try_to_load_from_cache(hub.repository, hub.filename, revision=hub.revision)
    return Path(path) if isinstance(path, str) else None


def _reason(error: Exception, hub: HubFile) -> tuple[str, bool]:
    """Say what went wrong and the first thing to do about it, and whether it may pass by itself."""
    from huggingface_hub import constants

    if any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in _chain(error)):
        full = f"the disk of the hub's cache is full ({constants.HF_HOME}); free some, or set HF_HOME to another folder"
        return full, False
    if "LocalEntryNotFoundError" in _classes(error):
        # The client raises it when it got no answer that it can use; its cause says why.
        cause = error.__cause__
        text, passes = (isinstance(cause, Exception) and _advice(cause, hub)) or _advice(error, hub) or ("", True)
        return f"not in the local cache, and {text}", passes
    return _advice(error, hub) or (_BROKEN_OFF.format(error=describe(error)), True)


def _advice(error: Exception, hub: HubFile) -> tuple[str, bool] | None:
    """Return the advice of the table for an error and whether it may pass, or None."""
    from huggingface_hub import get_token

    classes, status = _classes(error), getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in classes and not get_token():
        status = 401  # the hub says 403 as well to a request without a token
    row = next((r for r in _ADVICE if r[0] in classes and r[1] in (None, status)), None)
    if row is None:
        return None
    ask = f"ask for access on the page of {hub.repository} at Hugging Face, wait until it is granted"
    login = "log in with `hf auth login` or set HF_TOKEN"
    text = row[3].format(
        file=hub.filename,
        ask=ask,
        login=login,
        find=f"{ask}, then {login}" if hub.gated else "check on Hugging Face that it still exists",
        gated="; it is gated: ask for access on its page and set HF_TOKEN" if hub.gated else "",
        status=status,
        error=describe(error),
    )
    return text, row[2]


def _classes(error: Exception) -> set[str]:
    return {c.__name__ for c in type(error).__mro__}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
