"""What the rest of the project relies on in the demo's material: the same every time, and shaped like the real thing."""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiffslide

from stpath_assets import demo
from stpath_assets.demo import genes, phantom, spots
from stpath_assets.demo.phantom import Phantom, draw_phantom, write_slide
from stpath_assets.demo.spots import SimulatedSpots

SIZE_UM = 768


@pytest.fixture(scope="module")
def section() -> Phantom:
    return draw_phantom(5, size_um=SIZE_UM)


@pytest.fixture(scope="module")
def measured(section: Phantom) -> SimulatedSpots:
    return spots.simulate(section, 5)


def small(seed: int, mpp: float = 0.5) -> Phantom:
    return draw_phantom(seed, mpp, size_um=SIZE_UM)


def test_the_panel_is_200_distinct_symbols_and_a_tenth_follows_nothing() -> None:
    symbols = [g.symbol for g in genes.PANEL]
    assert len(symbols) == len(set(symbols)) == 200
    wanted = "EPCAM ERBB2 CD68 ACTA2 VIM GNAS FASN CD74 CD3D KRT19 COL1A1 MS4A1"
    assert set(wanted.split()) <= set(symbols)
    assert {g.compartment for g in genes.PANEL} == {*genes.COMPARTMENTS, None}
    assert sum(g.compartment is None for g in genes.PANEL) == 20


def test_the_vocabulary_has_an_id_of_its_own_for_each_gene_and_none_of_ensembls() -> None:
    vocabulary = genes.vocabulary()
    assert vocabulary["EPCAM"] == "DEMOG00000000001"
    assert len(set(vocabulary.values())) == len(vocabulary) == 200
    assert not any(i.startswith("ENS") for i in vocabulary.values())


def test_a_seed_gives_one_phantom_and_another_seed_another(section: Phantom) -> None:
    again = small(5)
    np.testing.assert_array_equal(again.image, section.image)
    for name, fraction in section.fractions.items():
        np.testing.assert_array_equal(again.fractions[name], fraction)
    assert not np.array_equal(small(6).tissue, section.tissue)


def test_compartments_share_out_the_tissue(section: Phantom) -> None:
    total = np.sum(list(section.fractions.values()), axis=0)
    assert set(section.fractions) == set(genes.COMPARTMENTS)
    assert all(f.shape == (SIZE_UM // 8, SIZE_UM // 8) for f in section.fractions.values())
    assert all(f.dtype == np.float32 and f.min() >= 0 for f in section.fractions.values())
    assert (total <= section.tissue + 1e-5).all()
    assert section.tissue.max() <= 1 + 1e-6
    assert all(f.sum() > 0.03 * section.tissue.sum() for f in section.fractions.values())


def test_a_quarter_of_the_slide_and_its_whole_rim_are_bright_glass(section: Phantom) -> None:
    blank = np.kron(section.tissue == 0, np.ones((16, 16), bool))
    assert 0.25 < blank.mean() < 0.8
    assert section.image[blank].mean() > 235
    assert section.image[blank].std(axis=0).max() < 4
    rim = np.ones_like(section.tissue, bool)
    rim[1:-1, 1:-1] = False
    assert (section.tissue[rim] == 0).all()


def test_nuclei_are_blue_and_collagen_is_pink(section: Phantom) -> None:
    def mean_colour(name: str) -> npt.NDArray[np.float64]:
        inside = np.kron(section.fractions[name] > 0.95, np.ones((16, 16), bool))
        return section.image[inside].mean(axis=0, dtype=np.float64)

    red, green, blue = mean_colour("stroma")
    assert red > blue > green
    red, green, blue = mean_colour("lymphocytes")
    assert blue > red > green
    assert mean_colour("fat").mean() > 210


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.4])
def test_the_written_slide_has_three_levels_and_the_scale_it_was_drawn_at(tmp_path: Path, mpp: float) -> None:
    drawn = draw_phantom(5, mpp, size_um=512)
    write_slide(drawn, tmp_path / "s.tif")
    with tiffslide.TiffSlide(tmp_path / "s.tif") as slide:
        assert slide.level_count == 3
        assert slide.level_downsamples == pytest.approx((1, 4, 16))
        assert slide.dimensions == (round(512 / mpp), round(512 / mpp))
        assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(mpp, rel=1e-6)
        assert float(slide.properties["tiffslide.mpp-y"]) == pytest.approx(mpp, rel=1e-6)
        pixels = slide.read_region((0, 0), 0, slide.dimensions, as_array=True)
        thumbnail = slide.read_region((0, 0), 2, slide.level_dimensions[2], as_array=True)
    assert np.abs(pixels.astype(int) - drawn.image).mean() < 6  # JPEG, and no swap of colours
    assert np.abs(thumbnail.mean((0, 1)) - drawn.image.mean((0, 1))).max() < 4


def test_a_finer_scan_shows_the_same_section(section: Phantom) -> None:
    fine = small(5, mpp=0.25)
    assert fine.image.shape == (SIZE_UM * 4, SIZE_UM * 4, 3)
    binned = fine.image.reshape(SIZE_UM * 2, 2, SIZE_UM * 2, 2, 3).mean((1, 3))
    assert np.abs(binned - section.image).mean() < 4
    np.testing.assert_array_equal(fine.tissue, section.tissue)


def test_a_size_that_the_fraction_maps_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        draw_phantom(1, size_um=500)


def test_spots_lie_on_a_hexagonal_lattice_in_tissue(section: Phantom, measured: SimulatedSpots) -> None:
    xy_um = measured.xy_px * section.mpp
    apart = np.hypot(*(xy_um[:, None] - xy_um[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy_um))
    assert len(xy_um) > 15
    assert apart.min() == pytest.approx(100, rel=1e-3)
    assert (measured.array_xy.sum(1) % 2 == 0).all()
    cell = (xy_um / phantom.FRACTION_MPP).astype(int)
    assert (section.tissue[cell[:, 1], cell[:, 0]] > 0).mean() > 0.95


def test_counts_follow_their_compartment_and_some_follow_nothing() -> None:
    section = draw_phantom(5)
    measured = spots.simulate(section, 5)
    xy_um = measured.xy_px * section.mpp
    r: dict[str | None, list[float]] = {}
    for column, gene in enumerate(genes.PANEL):
        share = spots._under(section.fractions[gene.compartment or "stroma"], xy_um)
        log_counts = np.log1p(measured.counts[:, column])
        r.setdefault(gene.compartment, []).append(float(np.corrcoef(share, log_counts)[0, 1]))
    assert all(np.mean(r[c]) > 0.6 for c in genes.COMPARTMENTS)
    assert abs(np.mean(r[None])) < 0.15


def test_counts_do_not_depend_on_the_scale_of_the_scan(measured: SimulatedSpots) -> None:
    fine = spots.simulate(small(5, mpp=0.25), 5)
    np.testing.assert_array_equal(fine.counts, measured.counts)
    np.testing.assert_allclose(fine.xy_px, measured.xy_px * 2)


def test_the_spot_files_have_her2sts_form_and_the_same_bytes_each_time(
    tmp_path: Path, measured: SimulatedSpots
) -> None:
    path = spots.write_spots(measured, tmp_path, "s")
    assert path == tmp_path / "s_counts.tsv.gz"
    header, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert header.split("\t") == ["", *(g.symbol for g in genes.PANEL)]
    selection = [line.split("\t") for line in (tmp_path / "s_selection.tsv").read_text().splitlines()]
    assert selection[0] == ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
    assert [r.split("\t")[0] for r in rows] == [f"{x}x{y}" for x, y, *_ in selection[1:]]
    np.testing.assert_array_equal([list(map(int, r.split("\t")[1:])) for r in rows], measured.counts)
    np.testing.assert_allclose([list(map(float, s[4:6])) for s in selection[1:]], measured.xy_px, atol=0.006)
    first = path.read_bytes()
    path.unlink()
    assert spots.write_spots(measured, tmp_path, "s").read_bytes() == first


def test_the_demo_draws_once_and_mends_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = draw_phantom
    monkeypatch.setattr(phantom, "draw_phantom", lambda seed, mpp: draw(seed, mpp, size_um=512))
    slides = demo.write_demo(tmp_path)
    assert [(s.slide_id, s.held_out) for s in slides] == [
        ("phantom_A", False),
        ("phantom_B", True),
        ("phantom_C", True),
    ]
    assert [s.spots is None for s in slides] == [False, False, True]
    assert {(s.organ, s.tech) for s in slides} == {("Breast", "Visium")}
    files = sorted(p for p in tmp_path.iterdir())
    assert len(files) == 7
    before = {p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).digest()) for p in files}
    (tmp_path / "phantom_A.tif").unlink()
    assert demo.write_demo(tmp_path) == slides
    after = {p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).digest()) for p in files}
    drawn_again = tmp_path / "phantom_A.tif"
    assert after.pop(drawn_again)[1] == before.pop(drawn_again)[1]
    assert after == before


def test_importing_the_demo_loads_no_image_library() -> None:
    code = (
        "import sys, stpath_assets.demo; print(*{'numpy', 'scipy', 'skimage', 'torch', 'dagster'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
