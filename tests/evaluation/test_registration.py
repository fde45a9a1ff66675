"""Whether spots fit their scan: real sections and phantoms as they are, and every way to lay them wrongly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.demo import write_phantom
from stpath_assets.evaluation.registration import Ground, check_registration, orientations
from stpath_assets.slides import open_slide
from stpath_assets.spots.reading import read_spots

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Section:
    """A scan with its spots and their depth."""

    ground: Ground
    xy_px: Points
    depth: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scan: Path, spots: Path, mpp: float | None = None) -> "Section":
        measured = read_spots(spots)
        with open_slide(scan, mpp) as slide:
            return cls(Ground.of(slide), measured.xy_px, np.asarray(measured.counts.sum(axis=1), float).ravel())

    def verdict(self, xy_px: Points) -> tuple[str, str, str]:
        found = check_registration(self.ground, xy_px, self.depth)
        return found.verdict, found.orientation, str(found.reason)


@pytest.fixture(scope="module")
def sections(shared: Path) -> dict[str, Section]:
    folder = shared / "data" / "her2st"
    return {n: Section.of(folder / f"{n}.tif", folder / f"{n}_counts.tsv.gz", 0.687) for n in ("C2", "C3")}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Section:
    written = write_phantom(tmp_path_factory.mktemp("phantom"), "phantom_B")
    return Section.of(written.slide, written.spots)


# What a user may have done to the coordinates, of an image of this size, and the orientation that undoes it.
WRONG: dict[str, tuple[Callable[[float, float, float, float], tuple[float, float]], str]] = {
    "mirrored in x": (lambda x, y, w, h: (w - x, y), "mirrored in x"),
    "mirrored in y": (lambda x, y, w, h: (x, h - y), "mirrored in y"),
    "half a turn": (lambda x, y, w, h: (w - x, h - y), "turned by 180°"),
    "x and y swapped": (lambda x, y, w, h: (y, x), "x and y swapped"),
    "a quarter to the right": (lambda x, y, w, h: (h - y, x), "turned by 270°"),
    "a quarter to the left": (lambda x, y, w, h: (y, w - x), "turned by 90°"),
    "swapped and half a turn": (lambda x, y, w, h: (h - y, w - x), "x and y swapped, turned by 180°"),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", ["C2", "C3"])
def test_real_spots_fit_their_scan(sections: dict[str, Section], name: str) -> None:
    section = sections[name]
    found = check_registration(section.ground, section.xy_px, section.depth)
    assert (found.verdict, found.orientation, found.reason) == ("ok", "as given", None)
    assert found.given.on_tissue > 0.98
    assert found.given.depth_rho > 0.5


@pytest.mark.shared
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["C2", "C3"])
def test_spots_of_a_turned_image_are_suspect_and_the_turn_is_named(
    sections: dict[str, Section], name: str, wrong: str
) -> None:
    section, (move, undone) = sections[name], WRONG[wrong]
    xy = np.stack(move(*section.xy_px.T, *section.ground.size_px), axis=1)
    verdict, orientation, reason = section.verdict(xy)
    assert (verdict, orientation) == ("suspect", undone)
    assert reason.startswith(f"{undone}? ")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["C2", "C3"])
def test_spots_that_are_turned_about_their_own_centre_are_suspect(sections: dict[str, Section], name: str) -> None:
    section = sections[name]
    turned = [(how, xy) for how, xy in orientations(section.xy_px, section.ground.size_px) if "centre" in how]
    assert len(turned) == 7
    for how, xy in turned:
        assert section.verdict(xy)[0] == "suspect", how


@pytest.mark.shared
def test_the_counts_of_another_section_are_suspect(sections: dict[str, Section]) -> None:
    for scan, spots in (("C2", "C3"), ("C3", "C2")):
        other = sections[spots]
        found = check_registration(sections[scan].ground, other.xy_px, other.depth)
        assert (found.verdict, found.orientation) == ("suspect", "as given")
        assert str(found.reason).startswith("of another section? 18% of the spots lie on tissue")


@pytest.mark.shared
@pytest.mark.parametrize("factor", [0.1, 0.21, 0.5, 2.0])
def test_spots_of_a_smaller_or_larger_image_are_suspect(sections: dict[str, Section], factor: float) -> None:
    for section in sections.values():
        verdict, orientation, reason = section.verdict(section.xy_px * factor)
        assert verdict == "suspect"
        assert orientation.startswith("scaled by ")
        assert float(orientation.removeprefix("scaled by ")) == pytest.approx(1 / factor, rel=0.08)
        assert reason.startswith("of another resolution")


def test_a_phantoms_spots_fit_and_swapped_ones_do_not(phantom: Section) -> None:
    assert phantom.verdict(phantom.xy_px)[0] == "ok"
    assert phantom.verdict(phantom.xy_px[:, ::-1])[:2] == ("suspect", "x and y swapped")
    assert phantom.verdict(phantom.xy_px * 0.2)[1].startswith("scaled by ")


def test_depth_alone_tells_a_mirrored_array_on_tissue_everywhere() -> None:
    rng = np.random.default_rng(0)
    tissue, stain = np.ones((100, 120), bool), np.tile(np.linspace(0, 1, 120, dtype=np.float32), (100, 1))
    ground = Ground(tissue, stain, (1200, 1000))
    xy = rng.uniform(0, 1, (300, 2)) * (1200, 1000)
    depth = xy[:, 0] + rng.normal(0, 200, 300)
    assert check_registration(ground, xy, depth).verdict == "ok"
    mirrored = check_registration(ground, xy * (-1, 1) + (1200, 0), depth)
    assert (mirrored.verdict, mirrored.given.on_tissue) == ("suspect", 1.0)
    assert mirrored.orientation.startswith("mirrored in x")


@pytest.mark.parametrize("n", [1, 2, 19, 40])
def test_spots_on_tissue_whose_counts_say_nothing_are_not_doubted(n: int) -> None:
    ground = Ground(np.ones((50, 50), bool), np.full((50, 50), 0.3, np.float32), (500, 500))
    found = check_registration(ground, np.random.default_rng(n).uniform(0, 500, (n, 2)), np.full(n, 7))
    assert (found.verdict, np.isnan(found.given.depth_rho)) == ("ok", True)


def test_a_scan_without_tissue_makes_all_spots_suspect() -> None:
    ground = Ground(np.zeros((50, 50), bool), np.zeros((50, 50), np.float32), (500, 500))
    found = check_registration(ground, np.random.default_rng(0).uniform(0, 500, (40, 2)), np.arange(40))
    assert found.verdict == "suspect"
    assert found.reason == "of another section? 0% of the spots lie on tissue, and no orientation fits"


@settings(max_examples=50, deadline=None)
@given(
    width=st.floats(10, 1e4),
    height=st.floats(10, 1e4),
    places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20),
)
def test_the_orientations_are_the_eight_of_a_rectangle(
    width: float, height: float, places: list[tuple[float, float]]
) -> None:
    size = (int(width), int(height))
    xy = np.array(places) * size
    back = {"turned by 90°": "turned by 270°", "turned by 270°": "turned by 90°"}
    for name, moved in orientations(xy, size):
        plain, about, _ = name.partition(" about")
        swaps = "swapped" in name or "90°" in name or "270°" in name
        # The image that was turned has the other size.
        undone = dict(orientations(moved, size[::-1] if swaps and not about else size))
        np.testing.assert_allclose(undone[back.get(plain, plain) + name.removeprefix(plain)], xy, atol=1e-6 * max(size))
