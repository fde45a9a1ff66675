"""What is shipped: the wheel has all that the program reads, versions agree, and containers name what is there."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tools import licences

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as it is for a release, but with the build tools that are installed."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("stpath_assets/")}
    listed = subprocess.run(["git", "ls-files", "stpath_assets"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shipped == set(listed.stdout.split())
    assert wheel.stat().st_size < 2 * 2**20


def test_it_runs_from_the_wheel_alone(wheel: Path, drawn_slide: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import stpath_assets as sa, stpath_assets.viewer.app as app\n"
        "from stpath_assets.prediction.predict import DEMO_WEIGHTS\n"
        "assert sa.__file__.startswith(sys.argv[1]), sa.__file__\n"
        "assert DEMO_WEIGHTS.exists() and (app.STATIC / 'slide.html').exists()\n"
        "print(repr(sa.open_slide(sys.argv[2])))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site"), str(drawn_slide)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("<slide drawn.tif")


def test_one_version_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bumpversion"]["current_version"]
        == PROJECT["version"]
    )


def test_a_release_finds_all_that_it_changes() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bumpversion", "bump", "minor", "--dry-run", "--verbose", "--allow-dirty"],
        cwd=ROOT, capture_output=True, text=True, env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    for file in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        assert file in said


@pytest.mark.parametrize(
    "name", ["deploy/docker/Dockerfile", "deploy/docker/Dockerfile.cuda", "deploy/host/Dockerfile"]
)
def test_containers_name_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    extras = re.findall(r"ARG EXTRAS=(\S+)|'\.\[([\w,]+)\]'", text)
    named = {extra for pair in extras for group in pair for extra in group.split(",") if extra}
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
    for path in re.findall(r"(?<![\w/])deploy/[\w./]+", text):
        assert (ROOT / path).exists(), path


def test_the_core_does_not_bring_what_extras_are_for() -> None:
    core = {re.split(r"[<>=\[]", dependency)[0] for dependency in PROJECT["dependencies"]}
    assert core.isdisjoint(
        {"ray", "dagster-ray", "scanpy", "squidpy", "spatialdata", "s3fs", "gcsfs", "dagster-postgres"}
    )
    assert {"eval", "ray", "remote", "viewer"} <= set(PROJECT["optional-dependencies"])


def locked() -> dict[str, list[str]]:
    """The hashes in the lock, by package and version."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line):
            name = f"{re.sub(r'[-_.]+', '-', match[1]).lower()}=={match[2]}"
            found[name] = []
        elif match := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            found[name].append(match[1])
    return found


def test_the_lock_has_hashes_for_all_that_the_constraints_choose() -> None:
    lock = locked()
    assert all(lock.values())
    lines = [line.partition(";") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    chosen = {
        re.sub(r"[-_.]+", "-", name.partition("==")[0]).lower() + "==" + name.partition("==")[2].strip()
        for name, _, _ in lines
    }
    assert sorted(chosen - lock.keys()) == []
    text = (ROOT / "requirements.lock").read_text()
    for platform in ("x86_64", "aarch64", "arm64"):
        assert f"platform_machine == '{platform}'" in text
    assert "://" not in text


def test_every_licence_was_looked_at() -> None:
    permissive, said, unknown = licences.survey()
    assert unknown == []
    assert {"openslide-bin", "openslide-python"} <= said.keys()
    page = (ROOT / "docs" / "licences.md").read_text()
    assert all(name in page for name in said)
    assert permissive.total() > 100
