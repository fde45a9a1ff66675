"""Downloads large files: checked, with progress, and resumed where an earlier attempt stopped."""

from pathlib import Path
from typing import Any

import httpx

from stpath_assets.errors import DownloadError, describe
from stpath_assets.progress import track

_WAIT_S = 60.0


def download(url: str, path: Path, sha256: str | None = None) -> str:
    """Fetch a file, unless it is there, and return its SHA-256, hexadecimal.

    Until it is complete, what was fetched lies beside it as `.part`. Raises `DownloadError`, one line, if the download fails, or
    if the file is not the one with this `sha256`.
    """
    import pooch

    def fetch(url: str, draft: str, _: Any) -> None:
        _fetch(url, path.with_name(f"{path.name}.part"))
        path.with_name(f"{path.name}.part").replace(draft)

    pooch.get_logger().setLevel("WARNING")
    known = None if sha256 is None else f"sha256:{sha256}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known, path.name, path.parent, downloader=fetch)
    except httpx.HTTPStatusError as e:
        raise DownloadError(
            f"{url}: the server refuses it ({e.response.status_code}); check the address, or try later"
        ) from e
    except (httpx.HTTPError, OSError) as e:
        error = DownloadError(f"{url}: broke off ({describe(e)}); type it again, it goes on where it stopped")
        error.may_pass = isinstance(e, httpx.HTTPError)
        raise error from e
    except ValueError as e:  # pooch's own for another checksum
        raise DownloadError(f"{url}: is not the expected file ({describe(e, 300)}); try again, or report it") from e
    return str(pooch.file_hash(str(path)))


def _fetch(url: str, part: Path) -> None:
    """Fetch a URL into a file. What is there from an earlier attempt is kept if the server still has the same version."""
    version = part.with_name(f"{part.name}.version")
    have = part.stat().st_size if part.exists() and version.exists() else 0
    # Without a version to compare, a range could be one of another file.
    headers = {"Range": f"bytes={have}-", "If-Range": version.read_text()} if have else {}
    with httpx.stream("GET", url, headers=headers, timeout=_WAIT_S, follow_redirects=True) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            version.unlink()  # nothing is left to fetch
            return
        answer.raise_for_status()
        resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if resumed else 0
        version.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            if (said := answer.headers.get("ETag", answer.headers.get("Last-Modified"))) is not None:
                version.write_text(said)
            total = have + int(answer.headers.get("Content-Length", 0))
            for block in track(answer.iter_raw(), part.stem, total, len, have):
                file.write(block)
    version.unlink(missing_ok=True)
