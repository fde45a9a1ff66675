"""Simulates a spot assay on a phantom, and writes it in the format of her2st.

Counts follow the share of tissue compartments under each spot, with the rates of `genes`. Reading measured expression belongs in
`stpath_assets.spots`.
"""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets.demo.genes import PANEL
from stpath_assets.demo.phantom import FRACTION_MPP, Phantom
from stpath_assets.storage import atomic_file

PITCH_UM = 100.0
DIAMETER_UM = 55.0
LEAK = 0.06
"""Rate of a gene outside its compartment, relative to the rate inside."""

_DEPTH_SPREAD = 0.2  # of the logarithm of a spot's depth
_DISPERSION = 0.08  # negative binomial: variance = mean + dispersion · mean²
_MIN_TISSUE = 0.5


@dataclass(frozen=True)
class SimulatedSpots:
    """Spots on a phantom.

    `array_xy` (N, 2) int are places on the array (x + y even, as on a hexagonal array), `xy_px` (N, 2) float64 centres in level-0
    pixels, `counts` (N, G) int32 the counts of the genes of `PANEL` in its order.
    """

    array_xy: npt.NDArray[np.int64]
    xy_px: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int32]


def simulate(phantom: Phantom, seed: int) -> SimulatedSpots:
    """Simulate the spots of a phantom. The same phantom and seed give the same counts at any scale."""
    rng = np.random.default_rng([20261, seed])
    array_xy, xy_um = _lattice(phantom.tissue.shape)
    mixes = np.column_stack([_under(m, xy_um) for m in phantom.fractions.values()])
    kept = _under(phantom.tissue, xy_um) >= _MIN_TISSUE
    array_xy, xy_um, mixes = array_xy[kept], xy_um[kept], mixes[kept]
    names = list(phantom.fractions)
    share = np.column_stack(
        [np.ones(len(mixes)) if g.compartment is None else mixes[:, names.index(g.compartment)] for g in PANEL]
    )
    depth = np.exp(rng.normal(0, _DEPTH_SPREAD, (len(mixes), 1)))
    mean = depth * np.array([g.rate for g in PANEL]) * (LEAK + (1 - LEAK) * share)
    shape = 1 / _DISPERSION
    counts = rng.poisson(rng.gamma(shape, mean / shape)).astype(np.int32)
    return SimulatedSpots(array_xy, xy_um / phantom.mpp, counts)


def write_spots(spots: SimulatedSpots, folder: Path, stem: str) -> Path:
    """Write `<stem>_selection.tsv` and `<stem>_counts.tsv.gz` into `folder`, byte for byte reproducible.

    Returns the path of the counts. They are written last: if they exist, the pair is complete.
    """
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    for (x, y), (px, py) in zip(spots.array_xy, spots.xy_px, strict=True):
        lines.append(f"{x}\t{y}\t{x:.3f}\t{y:.3f}\t{px:.2f}\t{py:.2f}\t1")
    with atomic_file(folder / f"{stem}_selection.tsv") as draft:
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["\t".join(["", *(g.symbol for g in PANEL)])]
    rows += [
        "\t".join([f"{x}x{y}", *map(str, counts)])
        for (x, y), counts in zip(spots.array_xy, spots.counts.tolist(), strict=True)
    ]
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as f:
        f.write(("\n".join(rows) + "\n").encode())
    path = folder / f"{stem}_counts.tsv.gz"
    with atomic_file(path) as draft:
        draft.write_bytes(packed.getvalue())
    return path


def _lattice(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return all places of the array on a slide: array x, y (N, 2), and centres in µm (N, 2)."""
    height, width = (n * FRACTION_MPP for n in shape)
    row_um = PITCH_UM * np.sqrt(3) / 2
    y, x = np.mgrid[: int(height / row_um), : int(2 * width / PITCH_UM)]
    array_xy = np.column_stack([x.ravel(), y.ravel()])[(x + y).ravel() % 2 == 0]
    xy_um = (array_xy + 0.5) * [PITCH_UM / 2, row_um]
    return array_xy, xy_um


def _under(fraction: npt.NDArray[np.float32], xy_um: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of a fraction map over the disc of each spot, (N,)."""
    reach = int(np.ceil(DIAMETER_UM / 2 / FRACTION_MPP))
    steps = np.arange(-reach, reach + 1)
    dx, dy = (d.ravel() for d in np.meshgrid(steps, steps))
    inside = np.hypot(dx, dy) * FRACTION_MPP <= DIAMETER_UM / 2
    centre = np.floor(xy_um / FRACTION_MPP).astype(int)
    columns = np.clip(centre[:, :1] + dx[inside], 0, fraction.shape[1] - 1)
    rows = np.clip(centre[:, 1:] + dy[inside], 0, fraction.shape[0] - 1)
    return fraction[rows, columns].mean(1, dtype=np.float64)
