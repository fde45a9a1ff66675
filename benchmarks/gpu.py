"""The STPath engine on a CUDA device: `python -m benchmarks.gpu`, some two minutes.

The network, the inputs and the random weights are those of `benchmarks.measure`; each precision has a process of its own. Time
is that of the wall clock, from arrays in the computer's memory to arrays there; memory is what PyTorch allocates on the device
above weights and kernels. `fused`: attention in one compiled kernel. `chunks`: a chunk of rows at a time.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks import reference
from benchmarks.measure import COLUMNS, ORGAN, TECH, Bench, write_weights
from benchmarks.tiles import cpu_model
from stpath_assets.prediction.stpath import Dtype

SIZES = (1_426, 10_000, 50_000)
DTYPES: tuple[Dtype, ...] = ("float16", "float32", "bfloat16")
ERROR_AT = 1_426
TIMES = 5
LONG_S = 1.5  # what takes longer is timed once, since its first run is short beside it


def main() -> int:
    """Prints what is measured; 1 without a device."""
    if not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        return 1
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; {cpu_model()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}\n"
    )
    print(
        "| tiles | precision | fused | chunks | memory, fused | memory, chunks | error, fused | error, chunks | no distances |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_weights(folder)
        np.save(folder / "exact.npy", Bench(folder, ERROR_AT).ours())
        for dtype in DTYPES:
            # What the kernel's compiler keeps on disk starts empty.
            env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / dtype)}
            for what in ("table", "first"):
                subprocess.run([sys.executable, "-m", "benchmarks.gpu", what, str(folder), dtype], check=True, env=env)
    return 0


def first(folder: Path, dtype: Dtype) -> list[float]:
    """Seconds of a process's first prediction in chunks, its first fused one, and the first of another number of tiles."""
    took = []
    for n, fused in ((1_300, False), (1_300, True), (1_700, True)):
        bench = Bench(folder, n, dtype, "cuda")
        bench.model.fused = fused
        took.append(_seconds(bench.ours))
    return took


def table(folder: Path, dtype: Dtype) -> None:
    """Prints all sizes in one precision, a row each."""
    said = first(folder, dtype)
    for n in SIZES:
        bench = Bench(folder, n, dtype, "cuda")
        seconds, memory, error = {}, {}, {}
        for name, fused in (("fused", True), ("chunks", False)):
            bench.model.fused = fused
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            values = bench.ours()
            memory[name] = f"{(torch.cuda.max_memory_allocated() - before) / 1e6:.0f} MB"
            exact = np.load(folder / "exact.npy") if n == ERROR_AT else None
            error[name] = "" if exact is None else f"{np.abs(values - exact).max():.1e}"
            seconds[name] = f"{_median(bench.ours):.3f} s"
        bare = _median(lambda: without_bias(bench, dtype))  # noqa: B023
        print(
            f"| {n:,} | {dtype} | {seconds['fused']} | {seconds['chunks']} | {memory['fused']} | {memory['chunks']} | "
            f"{error['fused']} | {error['chunks']} | {bare:.3f} s |",
            flush=True,
        )
    bench = Bench(folder, ERROR_AT, dtype, "cuda")
    values_s = _median(lambda: bench.model.predict(bench.features, bench.coords, ORGAN[0], TECH[0]), 3)
    print(f"{ERROR_AT:,} tiles, all genes, {dtype}: {values_s:.2f} s, stored {_median(bench.store_all, 3):.2f} s")
    _print_first(said, dtype, "nothing compiled")


def without_bias(bench: Bench, dtype: Dtype) -> np.ndarray:
    """The network with w_h = 0, attention by PyTorch's own kernel; 5 genes."""
    with torch.autocast("cuda", getattr(torch, dtype), enabled=dtype != "float32"):
        found = reference.without_bias(bench.model.state, bench.features, ORGAN[1], TECH[1], COLUMNS)
    return found.float().cpu().numpy()


def _print_first(took: list[float], dtype: Dtype, when: str) -> None:
    chunks, fused, another = took
    print(
        f"a process's first prediction, {dtype}, {when}: in chunks {chunks:.2f} s, then fused {fused:.2f} s, "
        f"then another number of tiles {another:.2f} s",
        flush=True,
    )


def _median(run: Callable[[], Any], times: int = TIMES) -> float:
    once = _seconds(run)
    return once if once > LONG_S else statistics.median(_seconds(run) for _ in range(times))


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()  # its result is in the computer's memory, so the device is done
    return time.perf_counter() - began


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(main())
    what, where, precision = sys.argv[1], Path(sys.argv[2]), cast(Dtype, sys.argv[3])
    if what == "table":
        table(where, precision)
    else:
        _print_first(first(where, precision), precision, "the kernel on disk")
