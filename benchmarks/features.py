"""From tiles to features: reading, kills, the real architecture: `python -m benchmarks.features`.

Encoders that do nothing, or sleep, show what the pipeline itself takes. The real architecture gets random weights, made here.
"""

import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import stpath_assets as sa
from benchmarks.tiles import SHARED, cpu_model
from stpath_assets.demo import write_phantom
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import encode_tiles
from stpath_assets.features.throughput import Meter
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tiles import RegularGrid, TileParameters, Tiles, store_tiles
from stpath_assets.tiles.reader import read_tiles

BATCH = 16
# Enough for some seconds of work, small enough to be made in one.
SMALL = {"depth": 1, "embed_dim": 1536, "num_heads": 24, "mlp_ratio": 1.0}


class Trivial:
    """Takes no time of the processor: nothing at all, or a sleep of some seconds a tile, as a GPU would."""

    name = device = "trivial"
    batch_size = BATCH

    def __init__(self, seconds_a_tile: float = 0.0) -> None:
        self.seconds_a_tile = seconds_a_tile

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Zeros."""
        time.sleep(self.seconds_a_tile * len(batch))
        return np.zeros((len(batch), 1536), np.float32)


@click.command()
@click.option("--slide", type=click.Path(exists=True, path_type=Path), help="A scan.  [default: C2, or drawn]")
@click.option("--kills", default=20, show_default=True, help="How often a run is killed.")
@click.option("--real/--no-real", default=True, help="Whether the real architecture is run: 10 GB of memory, minutes.")
@click.option("--resume-in", type=click.Path(path_type=Path), hidden=True)
def main(slide: Path | None, kills: int, real: bool, resume_in: Path | None) -> None:
    """Prints what is measured, a line each."""
    warnings.simplefilter("ignore")
    if resume_in is not None:
        _embed_small(resume_in)
        return
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scan = slide or (SHARED if SHARED.exists() else write_phantom(folder, "phantom_A").slide)
        for mpp in (None, 0.5):
            report_pipeline(scan, mpp)
        report_kills(scan, folder, kills)
        if real:
            report_real(scan, folder)


def report_pipeline(scan: Path, mpp: float | None) -> None:
    """Tiles a second of reading alone and of the pipeline with encoders that cost nothing, or 1 ms a tile."""
    with sa.open_slide(scan) as slide:
        tiles = sa.tile(slide, 224, mpp or slide.mpp)
        n = len(tiles)
    print(f"\n{scan.name}: {n} tiles at {tiles.mpp:g} µm/px, scan at {slide.mpp:g}")
    read, work = best(lambda: sum(1 for _ in read_tiles(fresh(scan, tiles).slide, tiles.grid, 224)))
    through, _ = best(lambda: sum(len(b) for b in encode_tiles(Trivial(), fresh(scan, tiles), 0, BATCH, Meter())))
    print(
        f"  reading alone: {n / read:.0f} tiles/s, {n / work:.0f} a core; with a trivial encoder: {n / through:.0f} tiles/s"
    )
    asleep, _ = best(lambda: sum(len(b) for b in encode_tiles(Trivial(1e-3), fresh(scan, tiles), 0, BATCH, Meter())))
    alone = n * 1e-3
    print(f"  1 ms a tile: {n / asleep:.0f} tiles/s, {alone / asleep:.1%} of the encoder's own rate (target ≥ 90 %)")


def fresh(scan: Path, tiles: Tiles) -> Tiles:
    """The same tiles of a scan that is opened anew, so that nothing is decoded yet."""
    return replace(tiles, slide=sa.open_slide(scan))


def best(run: Any, times: int = 3) -> tuple[float, float]:
    """Seconds by the clock and of processor time of the quickest of some runs."""
    took = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        took.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(took)


# ---- kill -9


def report_kills(scan: Path, folder: Path, kills: int) -> None:
    """A run that is killed at random moments, again and again, until it is through; beside one that is left alone."""
    homes = [folder / "whole", folder / "killed"]
    _write_small(folder / "small.pth")
    for home in homes:
        store = Store(home)
        row = Registry(store).add(scan, mpp=None, slide_id="scan")
        store_tiles(store, row, TileParameters(layout=RegularGrid(stride=2.0)))
    began = time.perf_counter()
    _process(homes[0]).wait()
    whole_s = time.perf_counter() - began
    rng, killed, resumed = random.Random(0), 0, []
    while killed < kills:
        process = _process(homes[1])
        try:
            process.wait(timeout=rng.uniform(0, whole_s))
            Store(homes[1]).path("gigapath_features", "scan").unlink()  # through: once more from the start
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            resumed.append(len(list(homes[1].rglob(".parts/**/*.npy"))))
            for path in (homes[1] / "tables" / "gigapath_features").glob("[!.]*"):
                assert path.read_bytes() == _features(homes[0]), "a part that is there is whole"
    _process(homes[1]).wait()
    same = _features(homes[1]) == _features(homes[0])
    print(f"\nkilled {killed} times, with {min(resumed)} to {max(resumed)} pieces done")
    print(f"  features {'identical to those of an undisturbed run' if same else 'DIFFER'}")
    left = [p for p in (homes[1] / "tables" / "gigapath_features").iterdir() if p.name.startswith(".")]
    print(f"  left over beside the features: {len(left)} files; an undisturbed run took {whole_s:.1f} s")


def _features(home: Path) -> bytes:
    return Store(home).path("gigapath_features", "scan").read_bytes()


def _process(home: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "benchmarks.features", "--resume-in", str(home)])


def _write_small(path: Path) -> None:
    import timm
    import torch

    from stpath_assets.features.encoders.gigapath import ARCHITECTURE

    torch.manual_seed(0)
    torch.save(timm.create_model(pretrained=False, **{**ARCHITECTURE, **SMALL}).state_dict(), path)


def _embed_small(home: Path) -> None:
    from stpath_assets.features import embedding, store_features
    from stpath_assets.features.encoders import gigapath

    embedding.PIECE = 32
    gigapath.ARCHITECTURE.update(SMALL)
    store = Store(home)
    store_features(store, Registry(store).get("scan"), EncoderChoice("gigapath", home.parent / "small.pth", "cpu"))


# ---- the real architecture


def report_real(scan: Path, folder: Path) -> None:
    """GigaPath's architecture with random weights: loading, and a few tiles in each precision, each in a process of its own."""
    path = folder / "random.pth"
    subprocess.run([sys.executable, "-c", _MAKE, str(path)], check=True)
    print(f"\nGigaPath's architecture, random weights, {path.stat().st_size / 1e9:.1f} GB")
    import torch

    for precision in (*(["float16"] if torch.cuda.is_available() else []), "bfloat16", "float32"):
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(path), str(scan), precision], check=True, stdout=subprocess.PIPE
        )
        r = json.loads(done.stdout)
        print(f"  {precision}: loaded in {r['load_s']:.1f} s, peak memory {r['rss'] / 1e9:.1f} GB")
        print(
            f"    forward {r['forward']:.2f} tiles/s, from the slide {r['slide']:.2f} ({r['slide'] / r['forward']:.0%})"
        )
        on_gpu = f", {r['gpu'] / 1e9:.1f} GB of the device's memory" if r["gpu"] else ""
        print(f"    on {r['device']}, batches of {r['batch']}{on_gpu}")


_MAKE = """
import sys, timm, torch
from stpath_assets.features.encoders.gigapath import ARCHITECTURE
with torch.device("meta"):
    model = timm.create_model(pretrained=False, **ARCHITECTURE)
state = model.to_empty(device="cuda" if torch.cuda.is_available() else "cpu").state_dict()
for name, tensor in state.items():
    if "norm" in name or "gamma" in name:  # a norm's scale, and how much of a block is added
        tensor.fill_(0.1 if "gamma" in name else name.endswith("weight"))
    else:
        tensor.normal_(0, 0.02)
torch.save({k: v.cpu() for k, v in state.items()}, sys.argv[1])
"""

_RUN = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import numpy as np
import pyarrow as pa
import stpath_assets as sa
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import encode_tiles
from stpath_assets.features.throughput import Meter, peak_rss_bytes
t = time.perf_counter(); encoder = EncoderChoice("gigapath", Path(sys.argv[1]), precision=sys.argv[3]).load(); load_s = time.perf_counter() - t
with sa.open_slide(sys.argv[2]) as slide:
    tiles = sa.tile(slide)
    on_gpu = encoder.device != "cpu"
    batch = encoder.batch_size if on_gpu else 4
    n = 8 * batch if on_gpu else 8
    again = -(-n // len(tiles))  # a device takes more tiles than a small scan has
    some = type(tiles)(slide, pa.concat_tables([tiles.table] * again).slice(0, n))
    pixels = next(some.batches(len(some)))
    encoder.encode(pixels[:batch])
    t = time.perf_counter()
    for i in range(0, n, batch): encoder.encode(pixels[i:i + batch])
    forward = n / (time.perf_counter() - t)
    t = time.perf_counter()
    sum(len(b) for b in encode_tiles(encoder, some, 0, batch, Meter()))
    slide_rate = n / (time.perf_counter() - t)
print(json.dumps({"load_s": load_s, "forward": forward, "slide": slide_rate, "rss": peak_rss_bytes(), "device": encoder.device, "batch": batch, "gpu": encoder.gpu_memory_bytes}))
"""  # noqa: E501

if __name__ == "__main__":
    main()
