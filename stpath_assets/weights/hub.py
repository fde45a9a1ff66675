"""Files of the Hugging Face hub, by its own client, and what to do where one cannot be had: one line a cause.

HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT work as everywhere. What the files hold is no matter of this module.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stpath_assets.errors import WeightsError


@dataclass(frozen=True)
class HubFile:
    """A file of a hub repository at a revision, and the setting that names a local copy instead."""

    repository: str
    filename: str
    revision: str
    setting: str
    gated: bool = False


def fetch(hub: HubFile) -> Path:
    """The file in the hub's cache, downloaded if it is not there. Raises `WeightsError` with the steps to take."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub.repository, hub.filename, revision=hub.revision))
    except Exception as e:  # the client's transport raises types of its own, other ones from version to version
        by_hand = f"or put {hub.filename} on this machine and set {hub.setting} to its path"
        raise WeightsError(f"{hub.repository} at {hub.revision[:12]}: {_reason(e, hub)}, {by_hand}") from e


def cached(hub: HubFile) -> Path | None:
    """The file in the hub's cache, or None where it has not been fetched; asks nothing of the network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub.repository, hub.filename, revision=hub.revision)
    return Path(path) if isinstance(path, str) else None


def _reason(error: Exception, hub: HubFile) -> str:
    """What went wrong, and the first thing to do about it."""
    from huggingface_hub import errors

    full = _no_space(error)
    if full:
        return full
    if isinstance(error, errors.LocalEntryNotFoundError):
        return _not_in_cache(error.__cause__, hub)
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision; install a newer version of this package"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no file {hub.filename} at this revision; install a newer version of this package"
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, hub)
    if isinstance(error, PermissionError):
        return f"the hub's cache cannot be written ({error}); set HF_HOME to a folder that can"
    return f"the download broke off ({_short(error)}); check the network and run it again, it goes on where it stopped"


def _refused(error: Exception, hub: HubFile) -> str:
    """The hub has answered, and refuses."""
    from huggingface_hub import errors, get_token

    status = getattr(error.response, "status_code", None)  # type: ignore[attr-defined]
    login = "log in with `hf auth login` or set HF_TOKEN"
    ask = f"ask for access on the page of {hub.repository} at Hugging Face, wait until it is granted"
    if isinstance(error, errors.GatedRepoError) and status != 401 and get_token():
        return f"the account of your token has no access; {ask}, and check that HF_TOKEN is that account's"
    if isinstance(error, errors.GatedRepoError):
        return f"access refused, the repository is gated and no valid token was sent; {ask}, then {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        steps = f"{ask}, then {login}" if hub.gated else "check on Hugging Face that it still exists"
        return f"access refused, or there is no such repository; {steps}"
    if status == 401:
        return f"the hub refuses the token (401); it is wrong or has expired: {login}"
    if status == 403:
        return f"the hub refuses access (403); give the token the right to read gated repositories, or {login}"
    return f"the hub answers with an error ({status}); try again later"


def _not_in_cache(cause: BaseException | None, hub: HubFile) -> str:
    """Not in the local cache, and the hub was not asked, or gave no answer of use."""
    from huggingface_hub import errors

    gated = "; it is gated: ask for access on its page and set HF_TOKEN" if hub.gated else ""
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return f"not in the local cache, and HF_HUB_OFFLINE is set; fetch it once without{gated}"
    if isinstance(cause, errors.FileMetadataError):
        return (
            "not in the local cache, and what answers is no Hugging Face hub; check HF_ENDPOINT and the network's proxy"
        )
    if isinstance(cause, errors.HfHubHTTPError):
        return f"not in the local cache; {_refused(cause, hub)}"
    return f"not in the local cache, and the hub cannot be reached (no network?); check the network and proxy{gated}"


def _no_space(error: Exception) -> str | None:
    for e in _chain(error):
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            from huggingface_hub import constants

            return f"the disk of the hub's cache is full ({constants.HF_HOME}); free some, or set HF_HOME to another folder"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
