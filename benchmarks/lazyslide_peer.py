"""What `benchmarks.tiles` runs in an environment that has LazySlide and not this package: prints JSON objects, the last counts.

Arguments: a scan, the tiles' µm per pixel, and worker counts separated by commas.
"""

import json
import resource
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Times tissue and tiles as a user of LazySlide calls them, then its reading of those tiles."""
    warnings.simplefilter("ignore")
    import lazyslide as zs
    from wsidata import open_wsi

    scan, mpp, workers = sys.argv[1], float(sys.argv[2]), sys.argv[3].split(",")
    found: dict[str, Any] = {"version": version("lazyslide")}
    say(found)
    start = time.perf_counter()
    wsi = open_wsi(scan)
    try:
        zs.pp.find_tissues(wsi)
    except Exception as e:  # a refusal is a result; the tiles then cover the whole scan
        found["refused"] = " ".join(f"{type(e).__name__}: {e}".split())[:120]
    found["tissue_s"] = time.perf_counter() - start
    say(found)
    zs.pp.tile_tissues(wsi, 224, mpp=mpp)
    found["tissue_and_grid_s"] = time.perf_counter() - start
    bounds = wsi.shapes["tiles"].bounds
    found["corners"] = bounds[["minx", "miny"]].to_numpy().tolist()
    found["side_px"] = float(bounds["maxx"].iloc[0] - bounds["minx"].iloc[0])
    found["tiles_per_s"] = {w: tiles_per_second(wsi, int(w)) for w in workers}
    say(found)


def say(found: dict[str, Any]) -> None:
    """What is known so far: a run that is killed for its memory has said it."""
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found), flush=True)


def tiles_per_second(wsi: Any, workers: int) -> float:
    """Best of three passes in batches of 16, from the first batch on: starting its processes is not counted."""
    from torch.utils.data import DataLoader

    best = 0.0
    for _ in range(3):
        batches = iter(DataLoader(wsi.ds.tile_images(), batch_size=16, num_workers=workers))
        next(batches)
        start = time.perf_counter()
        n = sum(len(b["image"]) for b in batches)
        best = max(best, n / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
