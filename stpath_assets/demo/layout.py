"""The geometry of a phantom: outline, compartments, glands, cells and the direction of fibres.

Pure geometry in µm, drawn from a random generator; one array pixel is 1 µm. Colour and texture belong in `phantom`.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SHARES = {"fat": 0.14, "muscle": 0.15, "lymphocytes": 0.16, "epithelium": 0.66}
"""Share of the tissue for each zone, in this order, of what the earlier zones left."""

# With a much smaller size, every 112 µm tile would have the same mix. Fat lobules are small, because large ones look like holes.
_ZONE_UM = {"fat": 48.0, "muscle": 95.0, "lymphocytes": 85.0, "epithelium": 95.0}
_RING_UM = 15.0


@dataclass
class Layout:
    """A section's geometry. All arrays are (H, W) at 1 µm per pixel; coverage is 0 to 1.

    `cover` holds the coverage of each compartment. They sum to at most `tissue`; the rest is lumen. `border` is 1 on the
    membranes of fat and epithelial cells. `across` and `along` are the coordinates of the fibres, µm. `nuclei` maps a kind to
    (N, 3) rows of x, y (µm) and angle (radians).
    """

    tissue: Array
    cover: dict[str, Array]
    lumen: Array
    border: Array
    across: Array
    along: Array
    nuclei: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)


def resize(a: npt.NDArray, shape: tuple[int, int]) -> Array:
    """Return `a` (h, w) resampled to `shape`, bilinear to enlarge and by area to shrink; float32."""
    image = Image.fromarray(np.ascontiguousarray(a, np.float32))
    way = Image.Resampling.BOX if shape[0] < a.shape[0] else Image.Resampling.BILINEAR
    return np.asarray(image.resize((shape[1], shape[0]), way))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Return Gaussian noise of mean 0 and deviation 1, smooth over about `sigma` pixels; (H, W) float32."""
    step = max(1.0, sigma / 3)
    small = (max(4, round(shape[0] / step)), max(4, round(shape[1] / step)))
    noise = gaussian_filter(rng.standard_normal(small, np.float32), sigma / step, mode="wrap")
    out = np.asarray(Image.fromarray(noise).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return (out - out.mean()) / out.std()


def draw_layout(rng: np.random.Generator, height_um: int, width_um: int) -> Layout:
    """Draw a section that fills about half of a slide of this size (µm), at least 256."""
    shape = (height_um, width_um)
    inside = _outline(rng, shape)
    tissue = _soft(inside)
    zones = _zones(rng, inside)
    ring, lumen, basal = _glands(rng, zones["glands"] & (inside > 25))
    nests = zones["nests"] & (smooth_noise(rng, shape, 13) > -0.55) & (ring + lumen == 0) & (inside > 8)
    epithelium = np.maximum(ring, nests.astype(np.float32))
    fat_cells = _scatter(rng, np.ones(shape), 33, 0.36)
    zones["fat"] = _whole_cells(zones["fat"] > 0.5, fat_cells)
    free = tissue * (1 - epithelium) * (1 - lumen)
    cover = {"epithelium": tissue * epithelium}
    for name in ("fat", "muscle", "lymphocytes"):
        cover[name] = free * zones[name]
        free = free - cover[name]
    cover["stroma"] = free
    across, along = _fibres(rng, shape)
    nest_cells = _scatter(rng, nests, 10.2)
    border = np.maximum(_borders(zones["fat"] > 0, fat_cells, 1.1), _borders(nests, nest_cells, 0.5))
    angle = np.arctan2(*np.gradient(across)) + np.pi / 2
    layout = Layout(tissue, cover, tissue * lumen, border, across, along)
    layout.nuclei = {
        "epithelial": np.vstack([basal[ring[_index(basal)] > 0.5], _turned(rng, nest_cells)]),
        "spindle": _aligned(rng, _scatter(rng, (cover["stroma"] > 0.6) & (inside > 2), 21), angle),
        "muscle": _aligned(rng, _scatter(rng, cover["muscle"] > 0.6, 17), angle),
        "lymphocyte": _turned(rng, _scatter(rng, cover["lymphocytes"], 7.0, 0.36)),
        "fat": _turned(rng, _scatter(rng, cover["fat"] * border > 0.6, 26)),
    }
    return layout


def _outline(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return the distance into the tissue, about µm, positive inside."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = x - shape[1] * rng.uniform(0.48, 0.52), y - shape[0] * rng.uniform(0.48, 0.52)
    stretch = np.float32(rng.uniform(0.9, 1.1))
    dx, dy = dx * stretch, dy / stretch
    theta = np.arctan2(dy, dx)
    wobble = sum(rng.uniform(0.3, 1) * np.cos(k * theta + rng.uniform(0, 2 * np.pi)) / k for k in (2, 3, 4, 5, 7))
    radius = 0.39 * min(shape) * (1 + 0.15 * np.asarray(wobble, np.float32))
    rough = 14 * smooth_noise(rng, shape, 30) + 4 * smooth_noise(rng, shape, 5)
    return radius - np.hypot(dx, dy) + np.minimum(rough, 30)


def _zones(rng: np.random.Generator, inside: Array) -> dict[str, npt.NDArray]:
    """Return soft zones of fat, muscle and lymphocytes, and sharp ones for glands and solid nests."""
    left = inside > 0
    zones: dict[str, npt.NDArray] = {}
    for name, share in SHARES.items():
        noise = smooth_noise(rng, inside.shape, _ZONE_UM[name])
        noise = noise + 0.07 * smooth_noise(rng, inside.shape, 9)
        over = noise - np.quantile(noise[left], 1 - share)
        # Lymphocytes infiltrate, so their zone has a wide edge. The other zones end sharply.
        width = 0.5 if name == "lymphocytes" else 0.02
        zones[name] = np.clip(0.5 + over / width, 0, 1) * left
        left = left & (over < 0)
    glandular = smooth_noise(rng, inside.shape, 120) > 0
    epithelium = zones.pop("epithelium") > 0.5
    zones["glands"], zones["nests"] = epithelium & glandular, epithelium & ~glandular
    return zones


def _glands(rng: np.random.Generator, zone: Mask) -> tuple[Array, Array, npt.NDArray[np.float64]]:
    """Return glands inside `zone`: coverage of their ring and their lumen, and the nuclei at the ring's base."""
    ring, lumen = np.zeros(zone.shape, np.float32), np.zeros(zone.shape, np.float32)
    nuclei: list[npt.NDArray[np.float64]] = [np.empty((0, 3))]
    for x, y in _scatter(rng, zone, 88):
        size, phases = rng.uniform(22, 42), rng.uniform(0, 2 * np.pi, 3)
        x0, y0 = max(0, int(x) - 64), max(0, int(y) - 64)
        box = np.s_[y0 : int(y) + 64, x0 : int(x) + 64]
        py, px = np.mgrid[box]
        depth = _radius(np.arctan2(py - y, px - x), size, phases) - np.hypot(py - y, px - x)
        hollow = _soft(depth - _RING_UM)
        ring[box] = np.maximum(ring[box] * (1 - _soft(depth)), _soft(depth) - hollow)
        lumen[box] = np.maximum(lumen[box] * (1 - _soft(depth)), hollow)
        t = np.arange(0, 2 * np.pi, 6.6 / size)
        t = t + rng.normal(0, 0.03, len(t))
        r = _radius(t, size, phases) - rng.uniform(4.5, 7.5, len(t))
        nuclei.append(np.column_stack([x + r * np.cos(t), y + r * np.sin(t), t]))
    return ring, lumen, np.vstack(nuclei)


def _radius(angle: npt.NDArray, size: float, phases: npt.NDArray) -> npt.NDArray:
    """Return a gland's radius in each direction, µm: a dented circle of `size`."""
    return size * (1 + sum(0.16 / (k + 1) * np.cos((k + 2) * angle + p) for k, p in enumerate(phases)))


def _fibres(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return coordinates across and along the fibres, µm: wavy at a large scale, crimped at a small one."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    across = x * np.float32(np.sin(turn)) + y * np.float32(np.cos(turn)) + 75 * smooth_noise(rng, shape, 110)
    along = x * np.float32(np.cos(turn)) - y * np.float32(np.sin(turn)) + 40 * smooth_noise(rng, shape, 110)
    across = across + 3.0 * np.sin(along / 11 + 2 * smooth_noise(rng, shape, 40)) + 2 * smooth_noise(rng, shape, 9)
    return across, along


def _scatter(
    rng: np.random.Generator, chance: npt.NDArray, spacing: float, jitter: float = 0.3
) -> npt.NDArray[np.float64]:
    """Return points x, y (N, 2) on a jittered hexagonal lattice, each kept with the probability at its place."""
    rows = np.arange(0, chance.shape[0], spacing * 0.866)
    columns = np.arange(0, chance.shape[1], spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x = x + spacing / 2 * (np.arange(len(rows)) % 2)[:, None]
    points = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-jitter, jitter, (x.size, 2)) * spacing
    points = points[(points >= 0).all(1) & (points < chance.shape[::-1]).all(1)]
    return points[rng.random(len(points)) < chance[_index(points)]]


def _index(points: npt.NDArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return row and column of the pixel under each point."""
    return points[:, 1].astype(np.intp), points[:, 0].astype(np.intp)


def _whole_cells(where: Mask, cells: npt.NDArray) -> Array:
    """Return the area of the cells whose centre lies in `where`: cells at the edge are completely in or out."""
    out = np.zeros(where.shape, np.float32)
    pixels = np.argwhere(maximum_filter(where, 81))  # no cell reaches further
    if len(pixels):
        nearest = cKDTree(cells[:, ::-1]).query(pixels)[1]
        out[tuple(pixels.T)] = where[_index(cells)][nearest]
    return out


def _borders(where: Mask, cells: npt.NDArray, width: float) -> Array:
    """Return 1 on lines, about `width` µm thick, between neighbouring cells, with rounded corners; (H, W)."""
    out = np.zeros(where.shape, np.float32)
    pixels = np.argwhere(where)
    if len(cells) > 2 and len(pixels):
        near = cKDTree(cells[:, ::-1]).query(pixels, k=3)[0]
        crowd = np.exp((near[:, :1] - near[:, 1:]) / (3 * width)).sum(1)
        out[tuple(pixels.T)] = np.clip((crowd - 0.45) * 3, 0, 1)
    return out


def _turned(rng: np.random.Generator, points: npt.NDArray) -> npt.NDArray[np.float64]:
    return np.column_stack([points, rng.uniform(0, np.pi, len(points))])


def _aligned(rng: np.random.Generator, points: npt.NDArray, angle: npt.NDArray) -> npt.NDArray[np.float64]:
    return np.column_stack([points, angle[_index(points)] + rng.normal(0, 0.15, len(points))])


def _soft(depth: npt.NDArray) -> Array:
    """Return coverage from a signed depth in pixels: 0 outside, 1 inside, with an edge one pixel wide."""
    return np.clip(depth + 0.5, 0, 1).astype(np.float32)
