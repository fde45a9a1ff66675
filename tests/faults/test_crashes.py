"""A few faults of each kind over all kinds of work; `make soak` injects hundreds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which("gcc") is None or sys.platform != "linux",
    reason="needs gcc and Linux, whose libc the shim stands before",
)


@needs_compiler
def test_kills_and_failing_writes_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    numbers = {"kills": 2, "writes": 1, "pairs": 0, "clocks": 0, "fuzz": 0}
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    program = [sys.executable, "-m", "tests.faults.soak", "--quick", *options]
    ran = subprocess.run(
        program, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "2 survived, 0 lost" in ran.stdout
    assert ran.stdout.count(", 0 lost\n") == 2, ran.stdout
