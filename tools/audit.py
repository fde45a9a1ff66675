"""Looks at what we install: known vulnerabilities, a bill of materials, licences. `make audit`.

The lock is audited by pip-audit, against the advisories of PyPI. What cannot be looked up, for want of a network, is said, and is
no error. The bill, CycloneDX 1.6 of the environment, goes to build/sbom.json.
"""

import json
import subprocess
import sys
from pathlib import Path

from tools.licences import survey

_BIN = Path(sys.executable).parent
_AUDIT_S = 600


def vulnerabilities(lock: str = "requirements.lock") -> tuple[list[str], int, int]:
    """Return a line for each known vulnerability of the lock, how many packages were looked up, and how many could not be."""
    program: list[str | Path] = [
        _BIN / "pip-audit",
        "-r",
        lock,
        "--require-hashes",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "-f",
        "json",
    ]
    try:
        ran = subprocess.run(program, capture_output=True, text=True, timeout=_AUDIT_S, check=False)
        packages = json.loads(ran.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):  # no answer, which it tells in its own words
        return [], 0, 0
    known = [p for p in packages if "skip_reason" not in p]
    found = [
        f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
        for p in known
        for v in p["vulns"]
    ]
    return found, len(known), len(packages) - len(known)


def write_bill(path: Path) -> int:
    """Write the bill of materials, and return how many components it has."""
    path.parent.mkdir(exist_ok=True)
    program: list[str | Path] = [
        _BIN / "cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--output-format", "JSON", "--output-file", path,
        sys.executable,
    ]  # fmt: skip
    subprocess.run(program, check=True, stderr=subprocess.DEVNULL)
    return len(json.loads(path.read_text())["components"])


def main() -> int:
    """Print what was found. Returns 1 for a known vulnerability or a licence that nobody looked at."""
    found, known, unknown = vulnerabilities()
    for line in found:
        print(line)  # noqa: T201
    missing = f"; {unknown} could not be looked up" if unknown or not known else ""
    print(f"vulnerabilities: {len(found)} in {known} packages{missing}")  # noqa: T201
    print(f"bill of materials: {write_bill(Path('build/sbom.json'))} components in build/sbom.json")  # noqa: T201
    permissive, said, new = survey()
    print(f"licences: {permissive.total()} permissive, {len(said)} named in docs/licences.md, {len(new)} not looked at")  # noqa: T201
    print("\n".join(new))  # noqa: T201
    return int(bool(found or new))


if __name__ == "__main__":
    sys.exit(main())
