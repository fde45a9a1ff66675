"""Which scale is believed, and what is said where file, user and objective disagree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.errors import ScaleError
from stpath_assets.slides import Registry, open_slide, scale
from stpath_assets.slides.formats.tiff import ome_scale
from stpath_assets.storage import Store
from tests.asked import ask
from tests.conftest import tissue_image

MPPS = st.floats(scale.MIN_MPP, scale.MAX_MPP)
ABSURD = st.sampled_from([0.0, -0.5, float("nan"), float("inf"), 264.6, 352.8, 0.049, 5.01])


def aperio(path: Path, mpp: float, power: object) -> Path:
    said = f"Aperio Image Library v11\n512x512|AppMag = {power}|MPP = {mpp}"
    tifffile.imwrite(path, tissue_image(512, 512), tile=(256, 256), photometric="rgb", description=said, metadata=None)
    return path


# ---- pixels that are nearly square


@given(MPPS, MPPS)
def test_the_files_scale_is_taken_as_it_is_along_x_and_y(x: float, y: float) -> None:
    assert scale.of_file((x, y)) == ((x, y), "")
    assert scale.choose("a", None, (x, y), "") == ((x, y), "file", [])


@given(MPPS, st.floats(0.9901, 1 / 0.9901))
def test_nearly_square_pixels_are_no_news(x: float, ratio: float) -> None:
    assert scale.against_square("a", (x, x * ratio)) == []


@given(MPPS, st.floats(1.0102, 3), st.booleans())
def test_other_pixels_are_told(x: float, ratio: float, swap: bool) -> None:
    (warning,) = scale.against_square("a", (x * ratio, x) if swap else (x, x * ratio))
    assert warning.startswith("a: pixels are not square, ")
    assert "--mpp" in warning


@given(MPPS, MPPS, MPPS, MPPS)
def test_what_the_user_gives_wins_and_either_side_can_contradict(a: float, b: float, x: float, y: float) -> None:
    used, source, warnings = scale.choose("a", (a, b), (x, y), "")
    assert (used, source) == ((a, b), "user")
    assert len(warnings) == (abs(a - x) > 0.05 * x or abs(b - y) > 0.05 * y)


@given(MPPS, ABSURD, st.booleans())
def test_one_absurd_side_is_enough(good: float, absurd: float, swap: bool) -> None:
    pair = (absurd, good) if swap else (good, absurd)
    mpp, complaint = scale.of_file(pair)
    assert mpp is None
    assert f"{absurd:.4g} µm per pixel, is outside the range of microscope scans" in complaint
    with pytest.raises(ScaleError, match="is outside the range of microscope scans"):
        scale.choose("a", pair, None, "")


# ---- the objective


@given(st.floats(1, 150), st.floats(0.626, 1.599))
def test_a_scale_near_its_objectives_is_no_news(power: float, off: float) -> None:
    assert scale.against_objective("a", (10 / power * off,) * 2, "file", power) == []


@given(st.floats(1, 150), st.floats(1.601, 50), st.booleans())
def test_a_scale_far_from_its_objectives_is_told(power: float, off: float, finer: bool) -> None:
    mpp = 10 / power * (1 / off if finer else off)
    (warning,) = scale.against_objective("a", (10 / power, mpp), "file", power)
    assert len(scale.against_objective("a", (mpp, mpp), "file", power)) == 1
    assert warning.startswith("a: the file's mpp ")
    assert f"contradicts its {power:g}x objective, which has about" in warning
    assert "--mpp" in warning


@pytest.mark.parametrize("value", [None, "", "unknown", "nan", "inf", "0", "-20", 1e9, [20]])
def test_an_objective_that_is_none(value: object) -> None:
    assert scale.power_of(value) is None
    assert scale.against_objective("a", (0.5, 0.5), "file", scale.power_of(value)) == []


@pytest.mark.parametrize(
    ("mpp", "power", "given", "whose"),
    [(0.25, 20, None, "the file's"), (0.5, 40, None, "the file's"), (0.5, 20, 0.25, "the given"), (0.5, 20, 0.49, None),
     (0.499, 20, None, None), (0.2525, 40, None, None), (0.325, 20, None, None), (0.5, "x", None, None)],
)  # fmt: skip
def test_a_scan_that_its_objective_contradicts(
    tmp_path: Path, mpp: float, power: object, given: float | None, whose: str | None
) -> None:
    with open_slide(aperio(tmp_path / "a.svs", mpp, power), given) as slide:
        said = [w for w in slide.warnings if "objective" in w]
        assert slide.objective_power == (float(power) if isinstance(power, int) else None)
        assert slide.mpp == (given or mpp), "a warning changes nothing"
    assert len(said) == (whose is not None)
    assert all(w.startswith(f"a.svs: {whose} mpp") for w in said)


def test_the_contradiction_is_in_the_catalog(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    Registry(store).add(aperio(tmp_path / "a.svs", 0.25, 20))
    rows = ask(store.home, "select slide_id, mpp, objective_power, w from slides, unnest(warnings) as u(w)")
    assert [r[:3] for r in rows] == [("a", 0.25, 20.0)]
    assert "contradicts its 20x objective, which has about 0.5" in rows[0][3]


# ---- OME


def ome(x: str | None, y: str | None, unit: str | None = None, power: str | None = None) -> str:
    size = "".join(
        f' PhysicalSize{a}="{v}"' + (f' PhysicalSize{a}Unit="{unit}"' if unit else "")
        for a, v in (("X", x), ("Y", y))
        if v is not None
    )
    lens = (
        "" if power is None else f'<Instrument ID="i"><Objective ID="o" NominalMagnification="{power}"/></Instrument>'
    )
    other = '<Image ID="b"><Pixels ID="q" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>'
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<OME xmlns="{schema}">{lens}<Image ID="a"><Pixels ID="p"{size}/></Image>{other}</OME>'


@pytest.mark.parametrize(
    ("xml", "mpp", "power"),
    [
        (ome("0.25", "0.26"), (0.25, 0.26), None),
        (ome("500", "500", "nm", "20"), (0.5, 0.5), 20.0),
        (ome("0.0005", "0.0005", "mm"), (0.5, 0.5), None),
        (ome("1", "1", "pixel", "40.0"), None, 40.0),
        (ome("0.5", None), None, None),
        (ome("much", "0.5"), None, None),
        (ome(None, None), None, None),
        ("<OME>", None, None),
        ("", None, None),
    ],
)
def test_what_ome_says(xml: str, mpp: tuple[float, float] | None, power: float | None) -> None:
    assert ome_scale(xml) == (None if mpp is None else pytest.approx(mpp), power)


def test_an_ome_scan_has_the_scale_of_its_xml(tmp_path: Path) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    image = tissue_image(512, 512)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", image, tile=(256, 256), photometric="rgb", metadata=metadata, ome=True,
        resolution=(96, 96), resolutionunit="INCH",
    )  # fmt: skip
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "file")


@pytest.mark.parametrize(("x", "y", "warned"), [(0.5, 0.4, True), (0.5, 0.4975, False), (0.5, 0.5, False)])
def test_pixels_that_are_not_square(slide_of: Callable[..., Path], x: float, y: float, warned: bool) -> None:
    scan = slide_of("a.tif", mpp=(x, y))
    with open_slide(scan) as slide:
        assert slide.mpp_xy == pytest.approx((x, y))
        assert slide.mpp == slide.mpp_file == pytest.approx((x + y) / 2)
        assert slide.scaled_shape(1.0) == (round(1200 * y), round(1600 * x))
        assert slide.read_scaled(8.0).shape == (*slide.scaled_shape(8.0), 3)
        assert [w.split(": ")[1].split(",")[0] for w in slide.warnings] == ["pixels are not square"] * warned
    with open_slide(scan, (x, x)) as slide:
        assert (slide.mpp_xy, slide.mpp_source) == ((x, x), "user")
        assert len(slide.warnings) == warned, "it contradicts the file, and pixels are square then"


def test_pixels_that_are_not_square_in_the_catalog(tmp_path: Path, slide_of: Callable[..., Path]) -> None:
    store = Store(tmp_path / "root")
    registry = Registry(store)
    row = registry.add(slide_of("a.tif", mpp=(0.25, 0.5)))
    square = registry.add(slide_of("b.tif", tissue_image(seed=1)))
    given = registry.add(slide_of("c.tif", tissue_image(seed=2), mpp=None), mpp=(0.4, 0.5))
    rows = ask(store.home, "select mpp, mpp_x, mpp_y, mpp_source from slides order by slide_id")
    assert rows == [(0.375, 0.25, 0.5, "file"), (0.5, 0.5, 0.5, "file"), (0.45, 0.4, 0.5, "user")]
    assert {"slide_mpp_x", "slide_mpp_y"} <= set(row.fingerprint.facts)
    assert not {"slide_mpp_x", "slide_mpp_y"} & set(square.fingerprint.facts), "what was made of it stays current"
    with given.open() as slide:
        assert slide.mpp_xy == (0.4, 0.5)
    assert registry.add(given.uri, organ="breast").mpp_xy == (0.4, 0.5)
    assert registry.refresh("a") == row
