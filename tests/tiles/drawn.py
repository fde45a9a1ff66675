"""Scans as the tissue mask sees them, drawn at 8 µm per pixel with their truth: (H, W, 3) uint8 and (H, W) bool."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[float, float, float]

SHAPE = (240, 320)
WHITE: Colour = (242, 242, 242)
PINK: Colour = (190, 120, 170)


def glass(colour: Colour = WHITE, noise: int = 2) -> Image:
    rng = np.random.default_rng(0)
    return (np.array(colour) + rng.integers(-noise, noise + 1, (*SHAPE, 1))).clip(0, 255).astype(np.uint8)


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    out = np.zeros(SHAPE, bool)
    out[top:bottom, left:right] = True
    return out


def disc(y: float, x: float, radius: float) -> Mask:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - y, columns - x) <= radius


def stained(image: Image, where: Mask, colour: Colour = PINK, texture: int = 30) -> Image:
    """Tissue of a colour, its pixels differing by up to `texture` grey values."""
    rng = np.random.default_rng(1)
    tissue = (np.array(colour) + rng.integers(-texture, texture + 1, (*SHAPE, 1))).clip(0, 255)
    return np.where(where[..., None], tissue, image).astype(np.uint8)


def fatty(where: Mask, cell_um: float = 70.0, membrane: Colour = (205, 140, 175)) -> Image:
    """Fat: cells as clear as glass between membranes 4 µm thick."""
    rng = np.random.default_rng(2)
    fine = tuple(4 * n for n in SHAPE)
    count = int(fine[0] * fine[1] * 4 / cell_um**2 * 1.1)
    cells = rng.random((count, 2)) * fine
    inside = np.argwhere(np.kron(where, np.ones((4, 4), bool)))
    near = cKDTree(cells).query(inside, k=2)[0]
    strokes = np.zeros(fine)
    strokes[tuple(inside.T)] = np.diff(near, axis=1)[:, 0] < 2
    cover = strokes.reshape(SHAPE[0], 4, SHAPE[1], 4).mean((1, 3))[..., None]
    return (glass() * (1 - cover) + np.array(membrane) * cover).round().astype(np.uint8)


def cores() -> Mask:
    """A tissue microarray: discs of 0.3 mm, a fifth of them lost."""
    out = np.zeros(SHAPE, bool)
    for i, y in enumerate(range(30, 220, 44)):
        for j, x in enumerate(range(30, 300, 44)):
            if (i + 2 * j) % 5:
                out |= disc(y, x, 19)
    return out


def biopsy() -> Mask:
    """Needle cores: strips 0.15 mm wide, broken into pieces."""
    out = np.zeros(SHAPE, bool)
    for k, top in enumerate((30, 80, 130, 180)):
        for left in range(20 + 7 * k, 280, 60):
            out[top : top + 19, left : left + 46] = True
    return out


def stroke(y: float, x: float, radius: float, width: float = 12) -> npt.NDArray[np.float64]:
    """How much ink there is of a ring drawn with a felt pen, 0 to 1: thin at its rim, streaky along it."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    away = np.abs(np.hypot(rows - y, columns - x) - radius)
    streaks = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), 2)
    return np.clip((width / 2 - away) / 2 + 0.5, 0, 1) * (0.75 + 0.5 * streaks).clip(0, 1)


def inked(image: Image, ink: npt.NDArray[np.float64], colour: Colour) -> Image:
    """Ink over a scan: light passes both."""
    light = (np.array(colour) / 255) ** ink[..., None]
    return (image * light).round().astype(np.uint8)


def blurred(image: Image, sigma_px: float) -> Image:
    return ndimage.gaussian_filter(image.astype(np.float32), (sigma_px, sigma_px, 0)).round().astype(np.uint8)
