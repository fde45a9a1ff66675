"""Draws a phantom H&E section from a seed and writes it as a slide.

Stains are mixed in optical density over the geometry of `layout`. A phantom also knows its composition, from which `spots`
simulates measurements.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from stpath_assets.demo.genes import COMPARTMENTS
from stpath_assets.demo.layout import Array, Layout, draw_layout, resize, smooth_noise
from stpath_assets.storage import atomic_file

FRACTION_MPP = 8.0
"""µm per pixel of a phantom's fraction maps."""

SIZE_UM = 1536
_DRAWN_MPP = 0.5
_MARGIN_PX = 24  # nuclei at the very edge are stamped into it
# Optical density (natural logarithm) of one unit of each stain in red, green, blue.
_HAEMATOXYLIN = np.array([0.66, 0.69, 0.30], np.float32)
_EOSIN = np.array([0.11, 0.85, 0.46], np.float32)
_GLASS = np.array([243, 242, 244], np.float32)

# kind: half axes in µm, their relative spread, haematoxylin at the rim and inside
_NUCLEI: dict[str, tuple[float, float, float, float, float]] = {
    "epithelial": (4.1, 3.2, 0.16, 1.45, 0.95),
    "spindle": (6.2, 1.35, 0.22, 1.45, 1.35),
    "muscle": (7.5, 1.5, 0.15, 1.2, 1.05),
    "lymphocyte": (2.9, 2.7, 0.08, 2.0, 1.75),
    "fat": (4.0, 1.2, 0.15, 1.3, 1.2),
}
_VARIANTS = 16
_ANGLES = 24


@dataclass(frozen=True)
class Phantom:
    """A drawn section.

    `image` is (H, W, 3) uint8 RGB at `mpp` µm per pixel. `fractions` maps each compartment to its share of the area, (h, w)
    float32 at `FRACTION_MPP`; `tissue` is the share of tissue. The compartments sum to at most `tissue`, because lumina are
    tissue without a compartment.
    """

    image: npt.NDArray[np.uint8]
    mpp: float
    fractions: dict[str, Array]
    tissue: Array


def draw_phantom(seed: int, mpp: float = _DRAWN_MPP, size_um: int = SIZE_UM) -> Phantom:
    """Draw the phantom of a seed. It is always the same one, at any `mpp`.

    `size_um` is the side of the square slide. Raises `ValueError` if it is not a multiple of 8.
    """
    if size_um % int(FRACTION_MPP):
        raise ValueError(f"size_um must be a multiple of {FRACTION_MPP:g}, not {size_um}")
    rng = np.random.default_rng([20260, seed])
    layout = draw_layout(rng, size_um, size_um)
    image = _stain(rng, layout)
    if mpp != _DRAWN_MPP:
        image = _scan_at(rng, image, mpp)
    side = int(size_um / FRACTION_MPP)
    fractions = {c: resize(layout.cover[c], (side, side)) for c in COMPARTMENTS}
    return Phantom(image, mpp, fractions, resize(layout.tissue, (side, side)))


def write_slide(phantom: Phantom, path: Path) -> None:
    """Write a pyramidal tiled JPEG TIFF of three levels (1, 1/4, 1/16). The same phantom gives the same bytes."""
    levels = [phantom.image]
    for _ in range(2):
        h, w = levels[-1].shape[:2]
        small = Image.fromarray(levels[-1]).resize((max(1, w // 4), max(1, h // 4)), Image.Resampling.BOX)
        levels.append(np.asarray(small))
    with atomic_file(path) as draft, tifffile.TiffWriter(draft) as tif:
        for k, level in enumerate(levels):
            per_cm = 1e4 / (phantom.mpp * 4**k)
            tif.write(
                level, tile=(256, 256), photometric="rgb", compression="jpeg", compressionargs={"level": 85},
                resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None, software=False,
                subifds=len(levels) - 1 if k == 0 else 0, subfiletype=0 if k == 0 else 1,
            )  # fmt: skip


def _stain(rng: np.random.Generator, layout: Layout) -> npt.NDArray[np.uint8]:
    """Return the section as a scanner sees it at 0.5 µm per pixel: (2H, 2W, 3) uint8."""
    shape = (layout.tissue.shape[0] * 2, layout.tissue.shape[1] * 2)
    haematoxylin, eosin = _ground(rng, layout, shape)
    nuclei = _nuclei(rng, layout.nuclei, shape)
    np.maximum(haematoxylin, nuclei, out=haematoxylin)
    # Sections vary in thickness, and optics blur.
    thickness = 1 + 0.06 * smooth_noise(rng, shape, 300)
    haematoxylin, eosin = (gaussian_filter(s * thickness, 0.7) for s in (haematoxylin, eosin))
    light = 1 + 0.008 * smooth_noise(rng, shape, 900)
    noise = rng.standard_normal(shape, np.float32)
    image = np.empty((*shape, 3), np.uint8)
    for c in range(3):
        density = haematoxylin * _HAEMATOXYLIN[c] + eosin * _EOSIN[c]
        image[..., c] = np.clip(_GLASS[c] * light * np.exp(-density) + 1.3 * noise, 0, 255)
    return image


def _ground(rng: np.random.Generator, layout: Layout, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return haematoxylin and eosin of everything but nuclei."""
    cover, small = layout.cover, layout.tissue.shape
    cloud = 1 + 0.14 * smooth_noise(rng, small, 3) + 0.10 * smooth_noise(rng, small, 14)
    secretion = np.clip(smooth_noise(rng, small, 25) - 0.4, 0, 0.5)
    h = cover["epithelium"] * 0.36 * cloud + cover["lymphocytes"] * 0.30 * cloud + cover["muscle"] * 0.14
    e = cover["epithelium"] * (0.40 * cloud + 0.14 * layout.border) + cover["lymphocytes"] * 0.26 * cloud
    e = e + cover["fat"] * (0.012 + 0.62 * layout.border) + layout.lumen * secretion * 0.5
    collagen, muscle = _fibre_textures(rng)
    # Rows are half a µm across the fibres, columns two µm along them.
    across, along = resize(layout.across * 2, shape), resize(layout.along / 2, shape)
    place = (across.astype(np.int32) % collagen.shape[0], along.astype(np.int32) % collagen.shape[1])
    eosin = resize(e, shape) + resize(cover["stroma"] * cloud, shape) * collagen[place]
    eosin += resize(cover["muscle"], shape) * muscle[place]
    haematoxylin = resize(h, shape) + 0.12 * resize(cover["stroma"], shape) * collagen[place]
    return haematoxylin, eosin


def _fibre_textures(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return eosin of collagen, with clefts between its bundles, and of muscle, which is dense and even."""
    size = (2048, 1024)

    def streaks(across: float, along: float) -> Array:
        noise = gaussian_filter(rng.standard_normal(size, np.float32), (across, along), mode="wrap")
        return noise / noise.std()

    bundles, fibrils, fascicles = streaks(8, 12), streaks(1.4, 6), streaks(11, 40)
    clefts = np.clip(1.75 + 1.1 * (bundles + 0.5 * fibrils), 0, 1)
    collagen = clefts * (0.56 + 0.09 * bundles + 0.13 * fibrils)
    muscle = np.clip(2.6 + 1.3 * (fascicles + 0.2 * fibrils), 0.04, 1) * (0.80 + 0.08 * fibrils)
    return np.maximum(collagen, 0.015), np.maximum(muscle, 0)


def _nuclei(rng: np.random.Generator, nuclei: dict[str, npt.NDArray[np.float64]], shape: tuple[int, int]) -> Array:
    """Return haematoxylin of the nuclei, (H, W), each stamped from a small stock of its kind."""
    m = _MARGIN_PX
    canvas = np.zeros((shape[0] + 2 * m, shape[1] + 2 * m), np.float32)
    for kind, rows in nuclei.items():
        stock = _stamps(rng, kind)
        half = stock.shape[-1] // 2
        turns = np.rint(rows[:, 2] / np.pi * _ANGLES).astype(int) % _ANGLES
        variants = rng.integers(_VARIANTS, size=len(rows))
        places = np.rint(rows[:, :2] / _DRAWN_MPP).astype(int) + m - half
        for (x, y), turn, variant in zip(places, turns, variants, strict=True):
            stamp = stock[turn, variant]
            box = canvas[y : y + stamp.shape[0], x : x + stamp.shape[1]]
            np.maximum(box, stamp, out=box)
    return canvas[m:-m, m:-m]


def _stamps(rng: np.random.Generator, kind: str) -> Array:
    """Return nuclei of a kind at 0.5 µm per pixel: (angles, variants, side, side)."""
    long, short, spread, rim, inside = _NUCLEI[kind]
    half = int(np.ceil(long * (1 + 2 * spread) / _DRAWN_MPP)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * _DRAWN_MPP
    out = np.empty((_ANGLES, _VARIANTS, *x.shape), np.float32)
    for variant in range(_VARIANTS):
        a, b = np.array([long, short]) * np.clip(1 + spread * rng.standard_normal(2), 1 - 2 * spread, 1 + 2 * spread)
        strength, bend = rng.uniform(0.85, 1.15), rng.normal(0, 0.12)
        chromatin = 1 + 0.16 * smooth_noise(rng, x.shape, 1.4)
        for k, t in enumerate(np.arange(_ANGLES) * np.pi / _ANGLES):
            u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
            r = np.hypot(u / a, (v - bend * u * u / a) / b)
            edge = np.clip((1 - r) * b / 0.5 + 0.5, 0, 1)
            out[k, variant] = edge * strength * chromatin * np.where(r > 0.72, rim, inside)
    return out


def _scan_at(rng: np.random.Generator, image: npt.NDArray[np.uint8], mpp: float) -> npt.NDArray[np.uint8]:
    """Return the image at another scale, with its own sensor noise."""
    h, w = (round(n * _DRAWN_MPP / mpp) for n in image.shape[:2])
    out = np.array(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
    for top in range(0, h, 512):
        band = out[top : top + 512]
        noise = rng.standard_normal(band.shape[:2], np.float32)[..., None]
        band[:] = np.clip(band + 1.3 * noise, 0, 255)
    return out
