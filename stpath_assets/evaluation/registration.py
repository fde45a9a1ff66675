"""Checks whether measured spots belong to the scan as they lie: on tissue, and in no other orientation better.

Spots that are mirrored, turned or of another section still give correlations, which look like those of a weak model. Nothing here
depends on a prediction. The result is a row of `spot_registration`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy

from stpath_assets.slides import Registered, Slide
from stpath_assets.spots import read_depth
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import SPOT_EXPRESSION, SPOT_REGISTRATION
from stpath_assets.tiles.tissue import CODE_VERSION as TISSUE_CODE_VERSION
from stpath_assets.tiles.tissue import TissueParameters, layers_of_image, optical_density

CODE_VERSION = f"1.{TISSUE_CODE_VERSION}"
"""Raised when the same scan and spots give another row of `spot_registration`."""

MIN_ON_TISSUE = 0.9
"""Share of spots on tissue from which they are not doubted. On the sections of her2st it is 0.99 and 1."""

MIN_WITH_DEPTH = 0.7
"""The same for spots whose depth follows the haematoxylin (`MIN_RHO`): the mask may miss pale tissue."""

MIN_RHO = 0.3
"""Rank correlation of depth and haematoxylin that speaks for a place of the spots. On her2st it is 0.62 and 0.67, and up to 0.26
in wrong orientations."""

BETTER = 0.3
"""By how much another orientation must fit better (`Fit.total`), if the spots as they lie are not bad in themselves."""

AROUND_UM = 50.0
"""Standard deviation of the Gaussian over which haematoxylin is averaged, µm: the radius of a spot."""

OTHER_SCALE = 1.5
"""Factor from which spots are taken for those of another resolution. Images of one scan differ by more."""

LEAST_RHO_SCALED = 0.1
"""Correlation that a factor needs besides tissue, since small copies of a section find tissue to lie on anywhere."""

FEWEST = 20
"""Spots on tissue that are needed for a correlation."""

AS_GIVEN = "as given"

Verdict = Literal["ok", "suspect"]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """How well spots fit a scan: the share of them on tissue, and Spearman's correlation of their depth (sum of counts) with the
    haematoxylin around them, over those on tissue; NaN if it is undefined.
    """

    on_tissue: float
    depth_rho: float

    @property
    def is_good(self) -> bool:
        """Whether these spots need not be doubted."""
        return self.on_tissue >= MIN_ON_TISSUE or (self.on_tissue >= MIN_WITH_DEPTH and self.depth_rho >= MIN_RHO)

    @property
    def total(self) -> float:
        """Orders fits: tissue and correlation count alike. A negative correlation is as good as none."""
        return self.on_tissue + max(float(np.nan_to_num(self.depth_rho)), 0.0)


@dataclass(frozen=True)
class Registration:
    """What is found: the verdict, the orientation that fits best, and one line that says why spots are suspect."""

    verdict: Verdict
    orientation: str
    reason: str | None
    n_spots: int
    given: Fit
    best: Fit


@dataclass(frozen=True)
class Ground:
    """A scan as spots are laid on it: tissue (H, W) bool and mean haematoxylin around each pixel (H, W) float32, optical density,
    at a low scale; `size_px` is the scan's width and height, level-0 pixels.
    """

    tissue: npt.NDArray[np.bool_]
    haematoxylin: npt.NDArray[np.float32]
    size_px: tuple[int, int]

    @classmethod
    def of(cls, slide: Slide, parameters: TissueParameters | None = None) -> "Ground":
        """Read a scan. Haematoxylin is separated by the stain vectors of Ruifrok and Johnston, Anal Quant Cytol Histol 2001."""
        from skimage.color import hed_from_rgb

        parameters = parameters or TissueParameters()
        image = slide.read_scaled(parameters.mpp)
        layers = layers_of_image(image, parameters)
        stain = (optical_density(image, layers.glass) @ hed_from_rgb[:, :1].astype(np.float32))[..., 0]
        sigma, share = AROUND_UM / parameters.mpp, layers.tissue.astype(np.float32)
        area = scipy.ndimage.gaussian_filter(share, sigma)
        mean = scipy.ndimage.gaussian_filter(stain * share, sigma) / np.maximum(area, 1e-3)
        return cls(layers.tissue, mean.astype(np.float32), (slide.width_px, slide.height_px))

    def fit(self, xy_px: Points, depth: npt.NDArray[np.float64]) -> Fit:
        """Lay spots, (N, 2) level-0 pixels, with their depth (N,), on the scan. Spots outside lie on no tissue."""
        h, w = self.tissue.shape
        column, row = (np.floor(xy_px / self.size_px * (w, h)).astype(np.int64)).T
        inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
        on = np.zeros(len(xy_px), bool)
        on[inside] = self.tissue[row[inside], column[inside]]
        stain, counts = self.haematoxylin[row[on], column[on]], depth[on]
        if on.sum() < FEWEST or np.ptp(stain) == 0 or np.ptp(counts) == 0:
            return Fit(float(on.mean()), float("nan"))
        return Fit(float(on.mean()), float(scipy.stats.spearmanr(stain, counts).statistic))


def check_registration(ground: Ground, xy_px: Points, depth: npt.NDArray) -> Registration:
    """Judge N spots at xy_px (N, 2), level-0 pixels, with depth (N,), the sum of each spot's counts."""
    depth = np.asarray(depth, np.float64)
    given = ground.fit(xy_px, depth)
    name, best = max(
        ((name, ground.fit(xy, depth)) for name, xy in orientations(xy_px, ground.size_px)),
        key=lambda found: found[1].total,
    )
    turned = best.is_good and (not given.is_good or best.total >= given.total + BETTER)
    if given.is_good and not turned:
        return Registration("ok", AS_GIVEN, None, len(xy_px), given, given)
    if turned:
        return Registration("suspect", name, _reason(f"{name}?", best, given), len(xy_px), given, best)
    factor, scaled = _best_factor(ground, xy_px, depth)
    if scaled.on_tissue >= MIN_ON_TISSUE and not scaled.depth_rho < LEAST_RHO_SCALED:
        reason = _reason(f"of another resolution, as if to be multiplied by {factor:.2g}?", scaled, given)
        return Registration("suspect", f"scaled by {factor:.2g}", reason, len(xy_px), given, scaled)
    reason = f"of another section? {given.on_tissue:.0%} of the spots lie on tissue, and no orientation fits"
    return Registration("suspect", AS_GIVEN, reason, len(xy_px), given, given)


def orientations(xy_px: Points, size_px: tuple[int, int]) -> Iterator[tuple[str, Points]]:
    """Yield the seven other orientations of spots, (N, 2), by name: of the whole scan, as if its image had been turned, and about
    the spots' own centre, as if the columns and rows of their array had been.
    """
    centre = (xy_px.min(axis=0) + xy_px.max(axis=0)) / 2
    for origin, end, about in (
        (np.zeros(2), np.array(size_px, float), ""),
        (centre, np.zeros(2), " about their centre"),
    ):
        (x, y), (right, bottom) = (xy_px - origin).T, end
        for name, moved in (
            ("mirrored in x", (right - x, y)),
            ("mirrored in y", (x, bottom - y)),
            ("turned by 180°", (right - x, bottom - y)),
            ("x and y swapped", (y, x)),
            ("turned by 90°", (right - y, x)),
            ("turned by 270°", (y, bottom - x)),
            ("x and y swapped, turned by 180°", (right - y, bottom - x)),
        ):
            yield f"{name}{about}", np.stack(moved, axis=1) + origin


def _best_factor(ground: Ground, xy_px: Points, depth: npt.NDArray[np.float64]) -> tuple[float, Fit]:
    """Return the factor, from the upper left corner, with which spots fit best. It is near that which makes them as large as the
    tissue.
    """
    rows, columns = np.flatnonzero(ground.tissue.any(axis=1)), np.flatnonzero(ground.tissue.any(axis=0))
    extent = np.ptp(xy_px, axis=0)
    if not len(rows) or not extent.all():
        return 1.0, Fit(0.0, float("nan"))
    scale = np.array(ground.size_px) / ground.tissue.shape[::-1]
    of_tissue = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1]) * scale
    middle = float(np.sqrt(np.prod(of_tissue / extent)))
    factors = middle * np.geomspace(0.6, 1.25, 31)
    fits = [(float(f), ground.fit(xy_px * f, depth)) for f in factors if not 1 / OTHER_SCALE < f < OTHER_SCALE]
    return max(fits, key=lambda found: found[1].total, default=(1.0, Fit(0.0, float("nan"))))


def _reason(question: str, better: Fit, given: Fit) -> str:
    return (
        f"{question} {better.on_tissue:.0%} of the spots would lie on tissue instead of {given.on_tissue:.0%}, with a rank "
        f"correlation of counts and haematoxylin of {better.depth_rho:.2f} instead of {given.depth_rho:.2f}"
    )


def registration_from(measured: Fingerprint) -> Fingerprint:
    """Return the fingerprint of a slide's `spot_registration` from that of its spots."""
    return measured.extend(SPOT_REGISTRATION.name, CODE_VERSION)


def store_registration(store: Store, row: Registered) -> Outcome:
    """Bring a slide's `spot_registration` up to date with its stored spots. A note says what is suspect.

    A slide without measured spots has none.
    """
    measured_from = store.fingerprint(SPOT_EXPRESSION.name, row.slide_id)
    if measured_from is None:
        store.remove([SPOT_REGISTRATION.name], row.slide_id)
        return Outcome(row.fingerprint, False)
    fingerprint = registration_from(measured_from)
    if store.is_current(SPOT_REGISTRATION.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    spots = read_depth(store, row.slide_id)
    with row.open() as slide:
        found = check_registration(Ground.of(slide), spots.xy_px, spots.depth)
    values = {
        "slide_id": row.slide_id,
        "verdict": found.verdict,
        "orientation": found.orientation,
        "reason": found.reason,
        "n_spots": found.n_spots,
        "on_tissue": found.given.on_tissue,
        "depth_rho": _or_null(found.given.depth_rho),
        "best_on_tissue": found.best.on_tissue,
        "best_depth_rho": _or_null(found.best.depth_rho),
    }
    table = pa.Table.from_pylist([values], SPOT_REGISTRATION.schema)
    store.write(SPOT_REGISTRATION.name, row.slide_id, table, fingerprint)
    doubt = () if found.reason is None else (f"{row.slide_id}: its spots are suspect: {found.reason}",)
    return Outcome(fingerprint, True, doubt)


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else value
