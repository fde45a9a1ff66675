"""One measurement in a process of its own: `python -m benchmarks.measure JSON` prints its result as JSON.

The weights are random and of the published sizes; they are written once, by `write_weights`. Time is that of the wall clock,
memory the high-water mark of the resident set above what is resident once weights and inputs are there (Linux).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import reference
from stpath_assets.prediction import STPath
from stpath_assets.prediction.checkpoint import Sizes
from stpath_assets.prediction.stpath import Dtype
from stpath_assets.storage import Store, fingerprint
from stpath_assets.tables import STPATH_PREDICTIONS

THREADS = 2
PUBLISHED = Sizes(features=1536, d_model=512, layers=4, heads=4, mlp=1024, genes=38_984)
COLUMNS = [2, 1002, 5002, 20_002, 38_983]
GENES = [f"G{c - 2:05d}" for c in COLUMNS]
ORGAN, TECH = ("Breast", 5), ("Visium", 2)

QUIET = 0.05
"""Share of the processors that other processes may take during a timed run; noisier runs are timed again."""

_TRIES = 2  # times as many runs as are asked for, at most


def write_weights(folder: Path) -> None:
    """Random weights of the published sizes, `stfm.pth`, and their vocabulary, `symbol2ensembl.json`."""
    draw = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in PUBLISHED.shapes().items():
        spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.05
        state[name] = torch.randn(shape, generator=draw) * spread
        if "edge_bias" in name:
            state[name] *= 0.1  # attention that looks at more than a tile's neighbours
        elif len(shape) == 1 and name.endswith("weight"):
            state[name] += 1
    torch.save(state, folder / "stfm.pth")
    names = {f"G{i:05d}": f"ENSG{i:011d}" for i in range(PUBLISHED.genes - 2)}
    (folder / "symbol2ensembl.json").write_text(json.dumps(names))


class Bench:
    """A loaded model and the inputs of n tiles on a grid."""

    def __init__(self, folder: Path, n: int, dtype: Dtype = "float32", device: str = "cpu") -> None:
        torch.set_num_threads(THREADS)
        self.model = STPath.load(folder / "stfm.pth", folder / "symbol2ensembl.json", device, dtype)
        rng = np.random.default_rng(0)
        self.features = rng.standard_normal((n, PUBLISHED.features), dtype=np.float32)
        side = int(np.ceil(n**0.5))
        self.coords = np.stack(np.divmod(np.arange(n), side), axis=1) * 224.0
        self.n = n

    def ours(self) -> np.ndarray:
        """The engine, 5 genes."""
        return self.model.predict(self.features, self.coords, ORGAN[0], TECH[0], GENES)

    def plain_reading(self, pairs: reference.Pairs = "once") -> np.ndarray:
        """`reference.plain_reading`, of whose columns 5 are kept."""
        return reference.plain_reading(self.model.state, self.features, self.coords, ORGAN[1], TECH[1], pairs).numpy()[
            :, COLUMNS
        ]

    def each_block(self) -> np.ndarray:
        """The same with pair features made in each block."""
        return self.plain_reading("each block")

    def distances_alone(self) -> np.ndarray:
        """The same with distances alone, made once."""
        return self.plain_reading("distances")

    def without_bias(self) -> np.ndarray:
        """`reference.without_bias`, 5 genes."""
        return reference.without_bias(self.model.state, self.features, ORGAN[1], TECH[1], COLUMNS).numpy()

    def five_and_dense(self) -> None:
        """The forward pass for 5 genes and one dense product with the head, nothing kept."""
        self.ours()
        with torch.inference_mode():
            x = torch.zeros(self.n, PUBLISHED.d_model)
            F.linear(x, self.model.state["gene_exp_head.1.weight"], self.model.state["gene_exp_head.1.bias"])

    def store_all(self) -> int:
        """All genes into a stored table, as `store_prediction` does it; the size of its file in bytes."""
        blocks = self.model.predict_blocks(self.features, self.coords, *(ORGAN[0], TECH[0]))
        ids = np.array([f"x{i}" for i in range(self.n)], object)
        self.store.write_by_gene(
            STPATH_PREDICTIONS.name, "bench", {"tile_id": ids}, blocks, fingerprint.start(), model="stpath"
        )
        return self.store.path(STPATH_PREDICTIONS.name, "bench").stat().st_size

    @cached_property
    def store(self) -> Store:
        """An empty lake, which takes a second to make."""
        self._home = tempfile.TemporaryDirectory()
        store = Store(Path(self._home.name))
        store.create()
        return store


def compare(bench: Bench, a: str, b: str, repeats: int) -> dict[str, Any]:
    """Medians of a's and b's seconds, and of b's over a's, from runs that take turns."""
    runs = {"a": getattr(bench, a), "b": getattr(bench, b)}
    for run in runs.values():
        run()
    pairs = [{name: timed(run) for name, run in runs.items()} for _ in range(repeats)]
    while len(pairs) < _TRIES * repeats and sum(_noise(p) < QUIET for p in pairs) < repeats:
        pairs.append({name: timed(run) for name, run in runs.items()})
    kept = sorted(pairs, key=_noise)[:repeats]
    a_s, b_s = (statistics.median(p[name][0] for p in kept) for name in ("a", "b"))
    ratio = statistics.median(p["b"][0] / p["a"][0] for p in kept)
    return {"a": a_s, "b": b_s, "ratio": ratio, "noise": max(map(_noise, kept)), "repeats": repeats}


def products(run: Callable[[], Any]) -> dict[str, Any]:
    """The share of a run's time that is spent in matrix products."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    times = {e.key: e.self_cpu_time_total for e in profile.key_averages()}
    matrix = sum(
        t for key, t in times.items() if key in ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm", "aten::bmm")
    )
    return {"share": matrix / sum(times.values())}


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that a run takes, and the share of the processors that others took meanwhile."""
    busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    others = _busy_seconds() - busy - (time.process_time() - own)
    return seconds, max(0.0, others / seconds / (os.cpu_count() or 1))


def _noise(pair: dict[str, tuple[float, float]]) -> float:
    return max(noise for _, noise in pair.values())


def _busy_seconds() -> float:
    """Processor seconds of all processes since the machine started (user, nice, system, interrupts, stolen)."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[i] for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def memory(run: Callable[[], Any]) -> dict[str, Any]:
    """MB that a run takes above what was resident before, and its seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    start = time.perf_counter()
    run()
    return {"mb": (_status("VmHWM") - before) / 1e6, "seconds": time.perf_counter() - start}


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out a request: `what` of `compare`, `memory`, `products`, `bytes`, `agree`."""
    bench = Bench(Path(request["folder"]), request["n"], request.get("dtype", "float32"))
    if request["what"] == "compare":
        return compare(bench, request["a"], request["b"], request["repeats"])
    if request["what"] == "memory":
        return memory(getattr(bench, request["a"]))
    if request["what"] == "products":
        return products(bench.ours)
    if request["what"] == "bytes":
        return {"bytes_a_value": bench.store_all() / bench.n / (PUBLISHED.genes - 2)}
    other = request.get("other_dtype")
    expected = bench.plain_reading() if other is None else Bench(Path(request["folder"]), bench.n, other).ours()
    return {"error": float(np.abs(bench.ours() - expected).max()), "largest": float(np.abs(expected).max())}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
