"""The scale of a Visium array: exact at any angle, and refused where the spots do not give it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpath_assets.errors import SpotsError
from stpath_assets.slides import Registry
from stpath_assets.spots import scale_of
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa
from tests.spots.arrays import place, places_of, write_array

PLACES = places_of(12, 20)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0.1, 2.5), st.floats(0, 6.3), st.booleans(), st.data())
def test_the_scale_is_that_of_the_array(
    tmp_path: Path, mpp: float, angle: float, mirrored: bool, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(PLACES), max_size=len(PLACES)).filter(lambda k: sum(k) > 60))
    some = PLACES[np.array(kept)]
    write_array(tmp_path / "outs", some, place(some, mpp, angle, mirrored), diameter_px=65 / mpp)
    assert scale_of(tmp_path / "outs") == pytest.approx(mpp, rel=1e-6)


def test_rounded_pixels_give_nearly_the_same_scale(tmp_path: Path) -> None:
    write_array(tmp_path / "outs", PLACES, place(PLACES, 0.3646, 0.01).round())
    assert scale_of(tmp_path / "outs") == pytest.approx(0.3646, rel=1e-3)


def test_a_diameter_of_55_um_is_refused(tmp_path: Path) -> None:
    write_array(tmp_path / "outs", PLACES, place(PLACES, 0.5), diameter_px=55 / 0.5)
    with pytest.raises(
        SpotsError, match=r"distances give 0\.5 µm per pixel, but their diameter gives 0\.5909"
    ) as caught:
        scale_of(tmp_path / "outs")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda xy: xy * [1, 1.1], "do not lie on a lattice"),
        (lambda xy: np.random.default_rng(1).permutation(xy), "do not lie on a lattice"),
        (lambda xy: xy * 0, "do not lie on a lattice"),
    ],
)
def test_spots_that_form_no_lattice_give_no_scale(tmp_path: Path, bend, said: str) -> None:
    write_array(tmp_path / "outs", PLACES, bend(place(PLACES, 0.5)))
    with pytest.raises(SpotsError, match=said):
        scale_of(tmp_path / "outs")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (np.array([(r, c) for r in range(6) for c in range(6)]), "Visium HD"),
        (np.array([(0, 0), (1, 1), (2, 2)]), "too few spots"),
    ],
)
def test_other_arrays_give_no_scale(tmp_path: Path, places, said: str) -> None:
    write_array(tmp_path / "outs", places, place(places, 0.5))
    with pytest.raises(SpotsError, match=said):
        scale_of(tmp_path / "outs")


def test_add_takes_the_scale_of_the_spots_and_keeps_it(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "v.tif", tissue_image(1300, 1600), mpp=None)
    outs = write_array(tmp_path / "outs", PLACES, place(PLACES, 0.8), diameter_px=65 / 0.8)
    home = tmp_path / "home"
    assert sa("add", image, "--home", home).exit_code == 1, "the image has no scale"
    ran = sa("add", image, "--mpp", "spots", "--home", home)
    assert ran.exit_code == 1
    assert "give --spots, a Visium folder" in ran.stderr
    ran = sa("add", image, "--mpp", "spots", "--spots", outs, "--home", home)
    assert ran.exit_code == 0, ran.stderr
    assert "0.8 µm/px (spots)" in ran.stdout
    registry = Registry(Store(home))
    for row in (registry.get("v"), registry.refresh("v"), registry.add(image, organ="Breast")):
        assert (round(row.mpp, 9), row.mpp_source) == (0.8, "spots")
    assert registry.add(image, mpp=0.7).mpp_source == "user"
    (tmp_path / "v.yaml").write_text("mpp: spots\nspots: outs\n")
    assert sa("add", tmp_path, "--home", home).exit_code == 0
    assert registry.get("v").mpp_source == "spots"
