"""Tissue, grid and the reading of tiles, beside LazySlide in the same run: `python -m benchmarks.tiles`.

LazySlide is found through `--lazyslide-python`, the interpreter of an environment that has it, and left out without.
Scans are the given one and what is made of its compressed blocks; nothing is downloaded.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import tifffile

import stpath_assets as sa
from stpath_assets.demo import write_phantom
from stpath_assets.slides import Slide
from stpath_assets.slides.blocks import BlockLevel
from stpath_assets.tiles.grid import Grid
from stpath_assets.tiles.reader import read_batches

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "her2st" / "C2.tif"
TILE_PX, FINE_MPP, HUGE_PX = 224, 0.25, 40_000
WORKERS, ROUNDS = (1, 2), 7


@click.command()
@click.option(
    "--slide", type=click.Path(exists=True, path_type=Path), help="A tiled JPEG TIFF.  [default: C2, or drawn]"
)
@click.option("--lazyslide-python", envvar="BENCH_LAZYSLIDE_PYTHON", help="Interpreter that has LazySlide.")
@click.option("--work", type=click.Path(path_type=Path), help="Where scans are made.  [default: a temporary folder]")
def main(slide: Path | None, lazyslide_python: str | None, work: Path | None) -> None:
    """Prints what is measured, a line each."""
    warnings.simplefilter("ignore")
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scan = slide or (SHARED if SHARED.exists() else write_phantom(folder, "phantom_A").slide)
        with sa.open_slide(scan) as opened:
            scan_mpp = opened.mpp
        mosaic, flat = folder / "mosaic.tif", folder / "mosaic_flat.tif"
        write_mosaic(scan, flat)
        write_mosaic(scan, mosaic, like=flat)
        scans = {scan: scan_mpp, mosaic: 0.5, flat: 0.5}
        peers: dict[Path, dict[str, Any]] = {}
        if lazyslide_python:
            peers = {p: ask_lazyslide(lazyslide_python, p, scans[p]) for p in (scan, mosaic)}
            peers[flat] = peers[mosaic]  # OpenSlide, which it reads with, sees one level in either
        for path in scans:
            report_tissue(path, peers.get(path))
        for path, mpp, peer in (
            (scan, scan_mpp, None), (scan, 0.5, None), (mosaic, 0.5, None),
            *((p, scans[p], peers[p]) for p in (scan, mosaic) if "corners" in peers.get(p, {})),
        ):  # fmt: skip
            report_reading(path, mpp, peer)
        huge = folder / "huge.tif"
        write_huge(scan, huge)
        report_memory(huge)


# ---- what is measured


def report_tissue(path: Path, peer: dict[str, Any] | None) -> None:
    """Opening, tissue and grid, best of three."""

    def found() -> int:
        with sa.open_slide(path) as slide:
            return len(sa.tile(slide, TILE_PX, 0.5))

    seconds, n = best_of(3, found)
    line = f"tissue and grid, {path.name}: {seconds:.2f} s ({n} tiles at 0.5 µm/px)"
    if peer and "tissue_s" in peer:
        theirs = peer.get("tissue_and_grid_s", peer["tissue_s"])
        line += f"; LazySlide {peer['version']} {theirs:.1f} s, {theirs / seconds:.0f} times as long, {peer['peak_gb']:.1f} GB"
        line += f" (found no tissue: {peer['refused']})" if "refused" in peer else ""
    elif peer:
        line += f"; LazySlide {peer['version']} was ended after {peer['ended_s']:.0f} s ({peer['ended']})"
    print(line, flush=True)


def report_reading(path: Path, mpp: float, peer: dict[str, Any] | None) -> None:
    """Tiles a second by number of workers, beside the raw decoding of the same blocks on one core."""
    with sa.open_slide(path) as slide:
        grid = sa.tile(slide, TILE_PX, mpp).grid
        if peer:  # the same tiles for both
            x, y = np.array(peer["corners"], float).T
            grid = Grid(np.arange(len(x)), np.arange(len(x)), x, y, peer["side_px"], peer["side_px"])
        level = BlockLevel(page_of(slide, mpp))
        blocks = blocks_under(slide, grid, mpp, level)

    def decode(some: list[tuple[int, int, int]] = blocks) -> None:
        for block in some:
            level._decode(*block)

    def decode_by_two() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(decode, (blocks[::2], blocks[1::2])))

    # In rounds, so that what else the machine does falls upon all alike; in processor time, so that little of it counts.
    rounds, by_two = [], []
    for _ in range(ROUNDS):
        raw = clocked(decode)
        by_two.append(clocked(decode_by_two).wall_s)
        rounds.append((raw, {w: clocked(lambda w=w: drain(path, grid, w)) for w in WORKERS}))  # type: ignore[misc]
    decoded = len(blocks) * level.block_width * level.block_height / 1e6
    whose = "LazySlide's" if peer else "our"
    print(
        f"reading, {path.name}, {whose} tiles at {mpp:.3g} µm/px: {len(grid)} on {len(blocks)} blocks; "
        f"raw {decoded / min(raw.cpu_s for raw, _ in rounds):.0f} MP/s a core"
    )
    seconds = {w: min(ours[w].wall_s for _, ours in rounds) for w in WORKERS}
    decoding = min(raw.wall_s for raw, _ in rounds) / min(by_two)
    for w in WORKERS:
        share = statistics.median(raw.cpu_s / ours[w].cpu_s for raw, ours in rounds)
        line = f"  {w} workers: {len(grid) / seconds[w]:.0f} tiles/s, {share:.0%} of the raw rate a core"
        if w > 1:
            line += f", {seconds[1] / seconds[w]:.2f} times one worker (decoding alone, two threads: {decoding:.2f} times one)"
        if peer:
            theirs = peer["tiles_per_s"][str(w)]
            line += f"; LazySlide {theirs:.0f} tiles/s, ours {len(grid) / seconds[w] / theirs:.1f} times as many"
        print(line, flush=True)


def report_memory(path: Path) -> None:
    """Time and peak memory of tissue and grid, in a process of its own."""
    code = (
        "import re, sys, time, warnings; warnings.simplefilter('ignore'); import stpath_assets as sa\n"
        "sa.tile, sa.open_slide; start = time.perf_counter(); slide = sa.open_slide(sys.argv[1], mpp=0.25)\n"
        "n = len(sa.tile(slide)); s = time.perf_counter() - start\n"
        # Not ru_maxrss, which a process inherits from the one that started it.
        "print(n, s, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 2**20)"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout.split()
    print(f"{HUGE_PX} x {HUGE_PX} px in one level: {out[0]} tiles, {float(out[1]):.1f} s, peak {float(out[2]):.2f} GB")


def ask_lazyslide(python: str, path: Path, mpp: float) -> dict[str, Any]:
    """What `lazyslide_peer` measures of a scan. A stored result of an earlier run would be read back, so it is removed."""
    script = Path(__file__).with_name("lazyslide_peer.py")
    workers = ",".join(map(str, WORKERS))
    with tempfile.TemporaryDirectory() as empty:
        link = Path(empty) / path.name
        link.symlink_to(path.resolve())
        start = time.perf_counter()
        done = subprocess.run([python, script, link, str(mpp), workers], capture_output=True, text=True, cwd=empty)
        seconds = time.perf_counter() - start
    lines = done.stdout.strip().splitlines() or ["{}"]
    found: dict[str, Any] = json.loads(lines[-1])
    if "version" not in found:
        raise click.ClickException(f"{python} has no LazySlide: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["killed, most likely for its memory"])[-1]
        found.update(ended=said[:120], ended_s=seconds)
    return found


def drain(path: Path, grid: Grid, workers: int) -> int:
    """Reads all tiles in batches of 16 with nothing cached."""
    with sa.open_slide(path) as slide:
        return sum(len(batch) for batch in read_batches(slide, grid, TILE_PX, 16, workers=workers))


def best_of(n: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest of n times in seconds, and the last result."""
    times = []
    for _ in range(n):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


class Clocked(NamedTuple):
    """Seconds by the clock, and of all cores' time."""

    wall_s: float
    cpu_s: float


def clocked(work: Callable[[], Any]) -> Clocked:
    """How long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Clocked(time.perf_counter() - wall, time.process_time() - cpu)


def page_of(slide: Slide, mpp: float) -> Any:
    """tifffile's page of the level that tiles of a scale are read from."""
    return tifffile.TiffFile(slide.path).series[0].levels[slide.level_for(mpp)].keyframe


def blocks_under(slide: Slide, grid: Grid, mpp: float, level: BlockLevel) -> list[tuple[int, int, int]]:
    """The blocks that hold any pixel of any tile, each once."""
    scale = slide.level_dimensions[slide.level_for(mpp)][0] / slide.width_px
    side = grid.side_px * scale
    found: set[tuple[int, int, int]] = set()
    for x, y in zip(grid.x_px * scale, grid.y_px * scale, strict=True):
        x1, y1 = min(int(x + side) + 1, level.width), min(int(y + side) + 1, level.height)
        found.update(level.blocks_of(int(x), int(y), x1 - int(x), y1 - int(y)))
    return sorted(found)


# ---- what it is measured on


def write_mosaic(scan: Path, path: Path, like: Path | None = None) -> None:
    """Two by two copies of a scan at 0.25 µm/px, block by block as they are compressed.

    With the same mosaic in one level as `like`, two further levels by factors of 4 are written from it.
    """
    with tifffile.TiffFile(scan) as tif:
        level = BlockLevel(tif.pages[0])
        rows, columns = 2 * -(-level.height // level.block_height), 2 * -(-level.width // level.block_width)
        shape, options = (rows * level.block_height, columns * level.block_width, 3), layout(tif.pages[0])
        with tifffile.TiffWriter(path) as out:
            blocks = repeated(level, rows, columns)
            out.write(blocks, shape=shape, dtype=np.uint8, subifds=2 if like else 0, **options)
            if like:
                with sa.open_slide(like) as flat:
                    for factor in (4, 16):
                        small = flat.read_scaled(FINE_MPP * factor)
                        out.write(small, subfiletype=1, **{**options, "photometric": "rgb"})


def write_huge(scan: Path, path: Path) -> None:
    """A scan of `HUGE_PX` squared in one level, of the same blocks over and over."""
    with tifffile.TiffFile(scan) as tif:
        level = BlockLevel(tif.pages[0])
        rows, columns = -(-HUGE_PX // level.block_height), -(-HUGE_PX // level.block_width)
        with tifffile.TiffWriter(path, bigtiff=True) as out:
            shape = (HUGE_PX, HUGE_PX, 3)
            out.write(repeated(level, rows, columns), shape=shape, dtype=np.uint8, **layout(tif.pages[0]))


def layout(page: Any) -> dict[str, Any]:
    """How the blocks of a page are to be declared in a new file, at 0.25 µm/px."""
    return {
        "tile": (page.tilelength, page.tilewidth),
        "photometric": page.photometric,
        "compression": page.compression,
        "subsampling": page.subsampling,
        "resolution": (1e4 / FINE_MPP, 1e4 / FINE_MPP),
        "resolutionunit": "CENTIMETER",
    }


def repeated(level: BlockLevel, rows: int, columns: int) -> Iterator[bytes]:
    """The compressed blocks of a level, repeated to so many rows and columns."""
    high, wide = -(-level.height // level.block_height), -(-level.width // level.block_width)
    for row in range(rows):
        for column in range(columns):
            yield level.compressed(row % high * wide + column % wide)


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
