"""Resampling of one tile beside two libraries: `python -m benchmarks.resampling`. `cykooz-resizer` is tried if it is installed.

One core, µs a tile of 224 px; each figure is the best of seven rounds, in which all take turns.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.tiles import cpu_model
from stpath_assets.slides.resampling import resample

TILE_PX, ROUNDS = 224, 7
SIDES = {"by area, 443.2 px": 443.2, "enlarged, 163 px": 163.0}
X, Y = 9.37, 10.81

# A tile of 112 px, as a scan of 1 µm per pixel has, whose first output pixel lies on the centre of a pixel of the scan.
CRASHES = (
    "from cykooz_resizer import *; o = ImageData(224, 224, PixelType.U8x3); "
    "Resizer().resize(ImageData(119, 119, PixelType.U8x3, bytes(119 * 119 * 3)), o, ResizeOptions("
    "resize_alg=ResizeAlg.convolution(FilterType.catmull_rom), crop_box=CropBox(3.25, 3.99, 112.0, 112.0)))"
)


def main() -> None:
    """Prints what is measured, a line each."""
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    noise = gaussian_filter(np.random.default_rng(0).random((480, 480, 3)), (1.2, 1.2, 0))
    pixels = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
    for name, side in SIDES.items():
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda side=side: resample(pixels, X, Y, side, side, TILE_PX),  # type: ignore[misc]
            "Pillow, bicubic": lambda side=side: by_pillow(pixels, side),  # type: ignore[misc]
        }
        if find_spec("cykooz_resizer"):
            ways["cykooz-resizer, catmull_rom"] = lambda side=side: by_cykooz(pixels, side)  # type: ignore[misc]
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for way, run in ways.items():
                best[way] = min(best[way], microseconds(run))
        print(f"{name}: " + ", ".join(f"{way} {us:.0f} µs" for way, us in best.items()))
    if find_spec("cykooz_resizer"):
        code = subprocess.run([sys.executable, "-c", CRASHES], check=False).returncode
        print(f"cykooz-resizer at a tile whose first pixel lies on a pixel's centre: exit code {code}")


def by_pillow(pixels: np.ndarray, side: float) -> Image.Image:
    """Pillow's antialiased bicubic, which GigaPath's own transform uses."""
    box = (X, Y, X + side, Y + side)
    return Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC, box=box)


def by_cykooz(pixels: np.ndarray, side: float) -> bytes:
    """The same filter by `fast_image_resize`."""
    from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

    height, width = pixels.shape[:2]
    out = ImageData(TILE_PX, TILE_PX, PixelType.U8x3)
    box = CropBox(X, Y, side, side)
    options = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom), crop_box=box)
    Resizer().resize(ImageData(width, height, PixelType.U8x3, pixels.tobytes()), out, options)
    return bytes(out.get_buffer())


def microseconds(run: Callable[[], object], n: int = 50) -> float:
    """Processor time of one call."""
    began = time.process_time()
    for _ in range(n):
        run()
    return (time.process_time() - began) / n * 1e6


if __name__ == "__main__":
    main()
