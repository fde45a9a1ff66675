"""Commands and commits of `benchmarks.catalog`: `add`, `status`, `doctor`, a stage's commit, and the demo."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.catalog_roots import Roots, panel, slide_name, tile_ids, values_of
from stpath_assets.slides import Registry
from stpath_assets.stages import Plan, states_of
from stpath_assets.tables import STPATH_PREDICTIONS

ROOT = Path(__file__).resolve().parents[1]


def seconds(command: Sequence[str], **options: Any) -> float:
    """Wall seconds of a process that must succeed; what it prints is thrown away."""
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return took


def command(*words: str) -> list[str]:
    """A command of this checkout."""
    return [sys.executable, "-m", "stpath_assets", *words]


def write_scan(path: Path, seed: int) -> Path:
    """A drawn scan of 1600 x 1200 px at 0.5 µm/px, its content one of a kind."""
    image = np.full((1200, 1600, 3), 242, np.uint8)
    image[300:900, 400:1200] = np.random.default_rng(seed).integers(90, 200, (600, 800, 3), np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, image, **options)
    return path


def add_one_more(roots: Roots, sizes: Sequence[int], times: int = 7) -> dict[int, dict[str, float]]:
    """Median seconds of one more `add`: the whole `process`, and the `call` of `Registry.add` in one that is warm.

    Sizes take turns. The first of each, with which Dagster learns of all slides, is not counted.
    """
    took: dict[int, dict[str, list[float]]] = {n: {"process": [], "call": []} for n in sizes}
    folder = roots.folder / "added"
    folder.mkdir(exist_ok=True)
    registries = {n: Registry(roots.store(n)) for n in sizes}
    for i in range(times + 1):
        for n in sizes:
            scans = [write_scan(folder / f"{k}_{n}_{i}.tif", 1000 * n + 2 * i + k) for k in range(2)]
            took[n]["process"].append(seconds(command("add", str(scans[0]), "--home", str(roots.root(n)))))
            began = time.perf_counter()
            registries[n].add(scans[1], organ="Lung")
            took[n]["call"].append(time.perf_counter() - began)
    return {n: {k: statistics.median(v[1:]) for k, v in kinds.items()} for n, kinds in took.items()}


def status(roots: Roots, n: int, times: int = 3) -> tuple[float, float]:
    """Median seconds of the command `status`, and of `states_of` alone in a process that is warm."""
    whole = statistics.median(
        seconds([*command("status", "--json", "--home", str(roots.root(n)))]) for _ in range(times)
    )
    inside = []
    for _ in range(times):
        began = time.perf_counter()
        states = list(states_of(roots.store(n), Plan(roots.settings(n))))
        inside.append(time.perf_counter() - began)
    wrong = {str(s) for _, stages in states for s in stages.values()} - {"current", "–"}
    if wrong:
        raise SystemExit(f"the synthetic slides are not current: {sorted(wrong)[:3]}")
    return whole, statistics.median(inside)


def doctor(roots: Roots, n: int, times: int = 3) -> tuple[float, float]:
    """Median seconds of `doctor --no-checksums` at n slides, and in a root of 10: what is not the lake's."""
    runs = [[_doctor(roots, size) for size in (n, 10)] for _ in range(times)]
    return statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs)


def _doctor(roots: Roots, n: int) -> float:
    began = time.perf_counter()
    # Its exit code may be 1: what it finds of weights and devices on this machine is no matter here.
    done = subprocess.run(
        command("doctor", "--no-checksums", "--home", str(roots.root(n))), capture_output=True, text=True, cwd=ROOT
    )
    took = time.perf_counter() - began
    if "up to date" not in done.stdout:
        raise SystemExit(f"doctor: {done.stderr.strip()[-300:]}")
    return took


def commit(roots: Roots, sizes: Sequence[int], times: int = 20) -> dict[int, dict[str, float]]:
    """Median ms of `Store.write_by_gene`, which replaces a slide's predictions: the whole `write`, and its `transact` alone."""
    took: dict[int, dict[str, list[float]]] = {n: {"write": [], "transact": []} for n in sizes}
    stores = {n: roots.store(n) for n in sizes}
    for n, store in stores.items():
        store.lake.transact = _timed(store.lake.transact, took[n]["transact"])  # type: ignore[method-assign]
    for i in range(times + 1):
        for n, store in stores.items():
            fingerprint = Registry(store).get(slide_name(i % n)).fingerprint.extend("benchmark", "1", stamp=i)
            values = values_of(i) + 1
            began = time.perf_counter()
            store.write_by_gene(
                STPATH_PREDICTIONS.name, slide_name(i % n), {"tile_id": tile_ids()}, [(panel(), values)], fingerprint,
                model="stpath-demo",
            )  # fmt: skip
            took[n]["write"].append((time.perf_counter() - began) * 1e3)
    return {n: {k: statistics.median(v[1:]) for k, v in kinds.items()} for n, kinds in took.items()}


def _timed(work: Any, took: list[float]) -> Any:
    def timed(*args: Any) -> Any:
        began = time.perf_counter()
        result = work(*args)
        took.append((time.perf_counter() - began) * 1e3)
        return result

    return timed


def demo(folder: Path, before: Path, pairs: int = 3) -> tuple[float, float]:
    """Median seconds of `demo` by this checkout, and by an older one; they take turns."""
    checkouts = {"now": ROOT, "before": before.resolve()}
    for checkout in checkouts.values():
        _check_import(checkout)
    took: dict[str, list[float]] = {name: [] for name in checkouts}
    for i in range(pairs):
        for name, checkout in checkouts.items():
            home = folder / f"demo_{name}_{i}"
            took[name].append(seconds(command("demo", "--home", str(home)), env=_env(checkout)))
    return statistics.median(took["now"]), statistics.median(took["before"])


def _env(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1", "DAGSTER_DISABLE_TELEMETRY": "1"}


def _check_import(checkout: Path) -> None:
    """That a command with the environment of a checkout imports its package, not the installed one."""
    code = "import stpath_assets; print(stpath_assets.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env=_env(checkout), capture_output=True, text=True, check=True)
    if Path(done.stdout.strip()).parent != checkout / "stpath_assets":
        raise SystemExit(f"{checkout}: its package is not imported, but {done.stdout.strip()}")
