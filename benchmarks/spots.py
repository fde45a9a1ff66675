"""Memory and time of a large array's measured counts: `python -m benchmarks.spots`, half a minute.

5,000 spots with 4,000 of 36,601 genes each, as an .h5ad: reading it, storing it by gene, summing each spot, and scoring a panel.
Memory is the peak above what was resident before (Linux).
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from benchmarks.measure import memory
from benchmarks.tiles import cpu_model
from stpath_assets.evaluation.storing import metrics_of
from stpath_assets.spots import read_depth, read_spots
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import start
from stpath_assets.tables import SPOT_EXPRESSION

SPOTS, GENES, MEASURED = 5_000, 36_601, 4_000
PANEL = 200
AT_ONCE = 512


def main() -> None:
    """Print a row for each step."""
    warnings.simplefilter("ignore")
    print(f"{cpu_model()}\n\n| {SPOTS:,} spots, {GENES:,} genes | seconds | peak memory, MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.h5ad"
        write(path)
        kept: dict[str, Any] = {}
        step("read", lambda: kept.update(spots=read_spots(path)))
        spots, store = kept.pop("spots"), Store(Path(folder) / "home")
        store.create()
        keys = {
            "spot_id": np.array(spots.spot_ids, object),
            **{f"{axis}_px": np.ascontiguousarray(spots.xy_px[:, i]) for i, axis in enumerate("xy")},
        }
        blocks = (
            (spots.genes[i : i + AT_ONCE], spots.counts[:, i : i + AT_ONCE].toarray())
            for i in range(0, len(spots.genes), AT_ONCE)
        )
        step(
            "store",
            lambda: store.write_by_gene(SPOT_EXPRESSION.name, "big", keys, blocks, start(made_from="benchmark")),
        )
        step("sum of each spot", lambda: kept.update(depth=read_depth(store, "big")))
        depth, rng = kept["depth"], np.random.default_rng(0)

        def read(genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            counts = store.read_by_gene(SPOT_EXPRESSION.name, "big", genes).values.astype(np.float64)
            return rng.normal(size=counts.shape), counts

        panel = depth.genes[:: len(depth.genes) // PANEL][:PANEL]
        step(
            f"score {PANEL} genes",
            lambda: list(metrics_of("big", "none", depth.depth, depth.xy_px * 0.5, read, panel)),
        )


def write(path: Path) -> None:
    """Write the counts."""
    import anndata
    import pandas as pd

    rng, side = np.random.default_rng(0), int(np.ceil(SPOTS**0.5))
    columns = np.concatenate([np.sort(rng.choice(GENES, MEASURED, replace=False)) for _ in range(SPOTS)])
    counts = scipy.sparse.csr_matrix(
        (rng.poisson(2, len(columns)).astype(np.float32) + 1, columns, np.arange(SPOTS + 1) * MEASURED),
        shape=(SPOTS, GENES),
    )
    anndata.AnnData(
        X=counts,
        obs=pd.DataFrame(index=[f"s{i}" for i in range(SPOTS)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(GENES)]),
        obsm={"spatial": np.stack(np.divmod(np.arange(SPOTS), side), axis=1) * 200.0},
    ).write_h5ad(path)


def step(what: str, run: Callable[[], Any]) -> None:
    """Run, and print time and memory."""
    time.sleep(0.1)
    used = memory(run)
    print(f"| {what} | {used['seconds']:.1f} | {used['mb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
