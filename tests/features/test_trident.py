"""TRIDENT's files: ours come back exactly, another tool's are taken where they fit, and what does not is refused by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stpath_assets.errors import FeatureError, StorageError
from stpath_assets.features import EncoderChoice, read_features, store_features, trident
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store
from stpath_assets.tiles import RegularGrid, TileParameters, store_tiles
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa

FACTS = {
    "encoder": "gigapath",
    "encoder_weights_sha256": "ab" * 32,
    "encoder_precision": "float16",
    "encoder_code": "2.1",
}
TILES = ((0, 0), (800, 100), (1376, 976))
"""Corners of 224 px tiles on a scan of 1600 by 1200 px at 0.5 µm per pixel."""


@pytest.fixture
def store(empty_store: Store) -> Store:
    return empty_store


@pytest.fixture
def row(store: Store, drawn_slide: Path) -> Registered:
    return Registry(store).add(drawn_slide)


def matrix_of(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 1536)).astype(np.float32)


Foreign = Callable[..., Path]


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """Writes a file as TRIDENT does; `coords` and `features` change attributes, None takes one away."""

    def write(
        corners: Any = TILES, patch: int = 224, matrix: Any = None, name: str = "drawn.h5", **attributes: Any
    ) -> Path:
        corners = np.asarray(corners)
        given = {
            "patch_size": patch, "patch_size_level0": patch, "level0_magnification": 20, "target_magnification": 20,
            "overlap": 0, "name": "drawn", "savetodir": "out", "level0_width": 1600, "level0_height": 1200,
            "encoder": "gigapath", **attributes,
        }  # fmt: skip
        with h5py.File(tmp_path / name, "w") as file:
            coords = file.create_dataset("coords", data=corners)
            data = matrix_of(len(corners)) if matrix is None else matrix
            features = file.create_dataset("features", data=data)
            for key, value in given.items():
                if value is not None:
                    (features if key == "encoder" else coords).attrs[key] = value
        return tmp_path / name

    return write


def refusal(path: Path, row: Registered) -> str:
    with pytest.raises(FeatureError) as error:
        trident.read(path, row)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{row.slide_id}: ")
    assert path.name in message
    return message


# ---- ours


def test_the_layout_is_tridents(store: Store, tmp_path: Path) -> None:
    """Names, types and attributes that its readers look for."""
    row = Registry(store).add(write_tiff(tmp_path / "fine.tif", tissue_image(), mpp=0.26))
    store_tiles(store, row, TileParameters(layout=RegularGrid(stride=0.5)))
    tiles = store.read("tile_grids", "fine")
    path = trident.write(tmp_path / "out" / "fine.h5", row, tiles, matrix_of(len(tiles)), FACTS, overlap_px=112)
    with h5py.File(path, "r") as file:
        coords, features = file["coords"], file["features"]
        assert (coords.dtype, coords.shape) == (np.int64, (len(tiles), 2))
        assert (features.dtype, features.shape) == (np.float32, (len(tiles), 1536))
        corners = np.stack([tiles["x_px"], tiles["y_px"]], axis=1)
        assert np.abs(coords[:] - corners).max() <= 0.5
        expected = {
            "patch_size": 224, "patch_size_level0": 431, "level0_magnification": 38, "target_magnification": 20,
            "overlap": 112, "name": "fine", "savetodir": str(tmp_path / "out"), "level0_width": 1600,
            "level0_height": 1200,
        }  # fmt: skip
        assert {k: coords.attrs[k] for k in expected} == expected
        assert dict(features.attrs)["encoder"] == "gigapath"
        assert features.attrs["name"] == "fine"
        assert features.attrs["stpath_encoder_weights_sha256"] == "ab" * 32


@pytest.mark.parametrize("mpp", [0.5, 0.2527, 0.26, (0.5, 0.26)])
def test_ours_come_back_exactly(store: Store, tmp_path: Path, mpp: float | tuple[float, float]) -> None:
    row = Registry(store).add(write_tiff(tmp_path / "a.tif", tissue_image(1300, 1900), mpp=mpp))
    made = store_tiles(store, row, TileParameters())
    tiles = store.read("tile_grids", "a")
    matrix = matrix_of(len(tiles))
    path = trident.write(tmp_path / "a.h5", row, tiles, matrix, FACTS)
    back = trident.read(path, row)
    np.testing.assert_array_equal(back.matrix, matrix)
    np.testing.assert_array_equal(back.corners, np.stack([tiles["x_px"], tiles["y_px"]], axis=1))
    assert back.tiles.tile_ids == tiles["tile_id"].to_pylist()
    sides = (tiles["side_px"][0].as_py(), tiles["side_y_px"][0].as_py())
    assert (back.tiles.side_px, back.tiles.side_y_px, back.tiles.mpp, back.tiles.notes) == (*sides, 0.5, ())
    assert {k: back.facts[k] for k in ("encoder", "encoder_weights_sha256", "encoder_precision")} == {
        k: v for k, v in FACTS.items() if k != "encoder_code"
    }
    assert back.facts["features_sha256"] == back.sha256
    again = Registry(store).add(tmp_path / "a.tif", features=path, check=trident.check)
    assert (
        store_tiles(store, again, TileParameters().of_given(back.tiles)).fingerprint.digest != made.fingerprint.digest
    )
    assert store.read("tile_grids", "a").equals(tiles)


def test_a_file_of_the_demo_says_so_and_does_not_pass_for_gigapath(
    store: Store, row: Registered, tmp_path: Path
) -> None:
    from stpath_assets.exports.trident import write_trident

    store_tiles(store, row, TileParameters(layout=RegularGrid(stride=0.75)))
    store_features(store, row, EncoderChoice("demo"))
    path = write_trident(store, "drawn", tmp_path / "d.h5")
    with h5py.File(path, "r") as file:
        assert file["features"].attrs["encoder"] == "demo"
        assert file["coords"].attrs["overlap"] == 56
        np.testing.assert_array_equal(file["features"][:], read_features(store, "drawn").matrix)
    assert "its features are of encoder 'demo'" in refusal(path, row)


def test_a_file_is_complete_or_not_there(store: Store, row: Registered, tmp_path: Path) -> None:
    store_tiles(store, row, TileParameters())
    tiles = store.read("tile_grids", "drawn")
    with pytest.raises(StorageError, match=r"ends in \.h5; name it so"):
        trident.write(tmp_path / "a.hdf", row, tiles, matrix_of(len(tiles)), FACTS)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        trident.write(tmp_path / "file" / "a.h5", row, tiles, matrix_of(len(tiles)), FACTS)
    with pytest.raises(KeyError):
        trident.write(tmp_path / "b.h5", row, tiles, matrix_of(len(tiles)), {})
    assert not list(tmp_path.glob("*.h5")) + list(tmp_path.glob(".*.tmp"))


def test_the_same_export_is_the_same_file(store: Store, row: Registered, tmp_path: Path) -> None:
    store_tiles(store, row, TileParameters())
    tiles = store.read("tile_grids", "drawn")
    files = [trident.write(tmp_path / "a.h5", row, tiles, matrix_of(len(tiles)), FACTS).read_bytes() for _ in range(2)]
    assert files[0] == files[1]


# ---- other tools'


def test_another_tools_file_is_taken(row: Registered, foreign: Foreign) -> None:
    back = trident.read(foreign(), row)
    assert back.corners.tolist() == [list(map(float, c)) for c in TILES]
    assert back.tiles.tile_ids == ["s00000", "s00001", "s00002"]
    np.testing.assert_array_equal(back.matrix, matrix_of(3))
    assert back.facts["encoder_weights_sha256"] == "not said"
    assert "cropped 224" in back.tiles.notes[0]


def test_tiles_that_are_square_in_pixels_are_not_on_a_scan_whose_pixels_are_not(
    store: Store, foreign: Foreign, tmp_path: Path
) -> None:
    scan = write_tiff(tmp_path / "drawn.tif", tissue_image(), (0.5, 0.25))
    said = refusal(foreign(), Registry(store).add(scan))
    assert "its tiles are 112.0 by 56.0 µm wide (224 px of 0.5 by 0.25 µm)" in said


def test_of_tiles_of_128_um_the_middle_is_what_gigapath_saw(row: Registered, foreign: Foreign) -> None:
    back = trident.read(foreign([(0, 0), (1344, 944)], patch=256), row)
    assert back.corners.tolist() == [[16, 16], [1360, 960]]
    assert (back.tiles.side_px, back.tiles.mpp) == (224, 0.5)
    assert "the middle 112 µm" in back.tiles.notes[0]


def test_a_scale_within_a_hundredth_is_kept_as_it_is(row: Registered, foreign: Foreign) -> None:
    back = trident.read(foreign(patch=226, corners=[(0, 0)]), row)
    assert (back.tiles.side_px, back.tiles.mpp) == (226, pytest.approx(113 / 224))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_leading_axis_and_other_floats_are_taken(row: Registered, foreign: Foreign, dtype: type) -> None:
    path = foreign(np.asarray(TILES, np.float64)[None], matrix=matrix_of(3)[None].astype(dtype))
    back = trident.read(path, row)
    assert (back.matrix.shape, back.matrix.dtype) == ((3, 1536), np.float32)
    np.testing.assert_array_equal(back.matrix, matrix_of(3).astype(dtype).astype(np.float32))


SPOILT = matrix_of(3)
SPOILT[1, 7] = np.nan
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"matrix": matrix_of(3)[:, :1024]}, "features have shape (3, 1024) of float32"),
    ({"matrix": matrix_of(2)}, "has 2 features for 3 coords"),
    ({"matrix": SPOILT}, "not finite in 1 of 3 rows, first 1"),
    ({"matrix": np.full((3, 1536), 1e300)}, "not finite in 3 of 3 rows"),
    ({"matrix": np.zeros((3, 1536), "S4")}, "must be numbers"),
    ({"encoder": "uni_v1"}, "are of encoder 'uni_v1'; STPath takes GigaPath's alone"),
    ({"encoder": None}, "does not say which encoder"),
    ({"encoder": "None"}, "does not say which encoder"),
    ({"patch": 512}, "its tiles are 256.0 µm wide (512 px of 0.5 µm); they must be 112 µm"),
    ({"patch": 228, "corners": [(0, 0)]}, "its tiles are 114.0 µm wide"),
    ({"patch_size_level0": None}, "patch_size_level0 None"),
    ({"patch_size_level0": "NaN"}, "patch_size_level0 NaN"),
    ({"patch_size_level0": -224}, "patch_size_level0 -224"),
    ({"corners": [(0, 0), (1400, 0)]}, "1 of 2 tiles lie outside the scan, first 1 at 1400, 0"),
    ({"corners": [(-5, 0)]}, "first 0 at -5, 0"),
    ({"corners": [(0.0, np.nan)]}, "coords that are not finite"),
    ({"corners": [(0, 0), (5, 5), (0, 0)]}, "1 tiles at the same place"),
    ({"corners": np.zeros((3, 3), int)}, "coords have shape (3, 3)"),
    ({"corners": np.zeros((0, 2), int)}, "has 0 tiles"),
    ({"level0_width": 3200}, "level0_width is 3200, that of the slide 1600"),
    ({"level0_height": 10}, "level0_height is 10"),
    ({"stpath_slide_sha256": "0" * 64}, "was made of another scan"),
    ({"stpath_side_px": 224.0}, "has no dataset x_px"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_what_does_not_fit_is_refused(row: Registered, foreign: Foreign, given: dict[str, Any], said: str) -> None:
    assert said in refusal(foreign(**given), row)


def test_a_set_that_lies_elsewhere_is_refused(row: Registered, foreign: Foreign, tmp_path: Path) -> None:
    path = foreign()
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("other.h5", "features")
    assert "no dataset features of its own" in refusal(path, row)
    with h5py.File(path, "a") as file:
        del file["features"]
    assert "no dataset features" in refusal(path, row)
    with h5py.File(path, "a") as file:
        file.create_group("features")
    assert "no dataset features" in refusal(path, row)


def test_a_size_that_is_a_lie_is_refused_unread(row: Registered, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("coords", (10**9, 2), np.int64, chunks=(1024, 2)).attrs["patch_size_level0"] = 224
        file.create_dataset("features", (10**9, 1536), np.float32, chunks=(1, 1536)).attrs["encoder"] = "gigapath"
    assert "has 1000000000 tiles; from 1 to 100,000" in refusal(tmp_path / "huge.h5", row)


def test_what_is_no_hdf5_is_refused(row: Registered, foreign: Foreign, tmp_path: Path) -> None:
    whole = foreign().read_bytes()
    for keep in (0, 8, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:keep])
        refusal(tmp_path / "cut.h5", row)
    (tmp_path / "text.h5").write_text("not a file of features")
    assert "cannot be read as HDF5" in refusal(tmp_path / "text.h5", row)
    assert "do not exist; check --features" in refusal(tmp_path / "none.h5", row)
    (tmp_path / "folder.h5").mkdir()
    refusal(tmp_path / "folder.h5", row)


# ---- in a data root


def test_every_given_tile_is_kept_and_measured(
    store: Store, row: Registered, foreign: Foreign, drawn_slide: Path
) -> None:
    """A tile of glass, one across the tissue's edge and one within: the mask and the filter drop none."""
    path = foreign([(0, 0), (300, 500), (700, 500)])
    row = Registry(store).add(drawn_slide, features=path, check=trident.check)
    given = trident.read(path, row).tiles
    made = store_tiles(store, row, TileParameters().of_given(given))
    tiles = store.read("tile_grids", "drawn")
    assert tiles["tile_id"].to_pylist() == ["s00000", "s00001", "s00002"]
    assert tiles["tissue_fraction"].to_pylist() == pytest.approx([0, (524 - 400) / 224, 1], abs=0.1)
    assert tiles["center_x_px"].to_pylist() == [112, 412, 812]
    assert made.fingerprint.facts["tile_coords_sha256"] == given.sha256
    assert any("taken as seen whole" in note for note in made.notes)
    assert not store_tiles(
        store, row, TileParameters(layout=RegularGrid(min_tissue=0.9, stride=2)).of_given(given)
    ).recomputed
    moved = trident.read(foreign([(0, 0), (300, 501), (700, 500)]), row).tiles
    assert store_tiles(store, row, TileParameters().of_given(moved)).recomputed


def test_a_grid_of_our_own_is_never_laid_in_place_of_given_tiles(
    store: Store, row: Registered, foreign: Foreign, drawn_slide: Path
) -> None:
    given = trident.read(foreign(), row).tiles
    with pytest.raises(ValueError, match="features_uri"):
        store_tiles(store, row, TileParameters().of_given(given))
    row = Registry(store).add(drawn_slide, features=foreign())
    with pytest.raises(ValueError, match="features_uri"):
        store_tiles(store, row, TileParameters())


def test_a_file_that_does_not_fit_is_refused_when_it_is_added(
    store: Store, foreign: Foreign, drawn_slide: Path
) -> None:
    registry = Registry(store)
    with pytest.raises(FeatureError, match="another scan"):
        registry.add(drawn_slide, features=foreign(level0_width=99), check=trident.check)
    assert registry.all() == []
    assert registry.add(drawn_slide, features=foreign(), check=trident.check).features_uri is not None
    with pytest.raises(FeatureError, match=r"its tiles are 67\.2 µm wide"):
        registry.add(drawn_slide, mpp=0.3, check=trident.check)
    assert registry.get("drawn").mpp == 0.5


def test_the_file_is_kept_until_it_is_taken_away(
    store: Store, foreign: Foreign, drawn_slide: Path, tmp_path: Path
) -> None:
    registry = Registry(store)
    (tmp_path / "r.geojson").touch()
    first = registry.add(drawn_slide, features=foreign(), regions=tmp_path / "r.geojson")
    assert registry.add(drawn_slide, organ="Breast").features_uri == first.features_uri
    none = registry.add(drawn_slide, features="none", regions="none", spots="none")
    assert (none.features_uri, none.regions_uri, none.spots_uri) == (None, None, None)
    assert registry.add(drawn_slide).features_uri is None
    assert none.row_fingerprint.digest != first.row_fingerprint.digest


@pytest.mark.parametrize("n", [40])
def test_random_damage_is_refused_or_harmless(row: Registered, foreign: Foreign, tmp_path: Path, n: int) -> None:
    """Bytes of the structure changed: one line, or what is read is as whole as before."""
    whole = foreign(matrix=np.ones((3, 1536), np.float32)).read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(n):
        damaged = bytearray(whole)
        for at in rng.integers(0, 2048, 4):
            damaged[at] ^= int(rng.integers(1, 256))
        path = tmp_path / "damaged.h5"
        path.write_bytes(damaged)
        try:
            back = trident.read(path, row)
        except FeatureError:
            refused += 1
        else:
            assert back.matrix.shape == (len(back.tiles), 1536)
            assert np.isfinite(back.matrix).all()
        os.unlink(path)
    assert refused > 0


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_takes_the_files_tiles_and_features(
    store: Store, foreign: Foreign, drawn_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Dagster, without GigaPath's weights: predictions, and an export that holds what was imported."""
    golden = Path(__file__).parents[1] / "prediction" / "golden"
    monkeypatch.setenv("STPATH_WEIGHTS", str(golden / "stfm.pth"))
    monkeypatch.setenv("STPATH_VOCABULARY", str(golden / "symbol2ensembl.json"))
    monkeypatch.setenv("STPATH_HOME", str(store.home))

    corners = [(700, 500), (300, 500), (1376, 976)]
    assert "level0_width is 99" in sa("add", drawn_slide, "--features", foreign(level0_width=99)).stderr
    added = sa("add", drawn_slide, "--features", foreign(corners, patch=224))
    assert added.exit_code == 0
    assert "taken as seen whole" in added.stderr
    ran = sa("run", "--genes", "EPCAM,CD74")
    assert ran.exit_code == 0, ran.stderr
    features = read_features(store, "drawn")
    np.testing.assert_array_equal(features.matrix, matrix_of(3))
    assert features.centers_px.tolist() == [[x + 112, y + 112] for x, y in corners]
    assert store.row_count("stpath_predictions", "drawn") == 6
    assert sa("export", "drawn", "--to", "trident", "--out", tmp_path / "out.h5").exit_code == 0
    back = trident.read(tmp_path / "out.h5", Registry(store).get("drawn"))
    np.testing.assert_array_equal(back.matrix, matrix_of(3))
    assert back.corners.tolist() == [list(map(float, c)) for c in corners]

    made = store.path("gigapath_features", "drawn").stat().st_mtime_ns
    assert sa("run", "--genes", "EPCAM,CD74").exit_code == 0
    assert store.path("gigapath_features", "drawn").stat().st_mtime_ns == made
    foreign(corners, matrix=matrix_of(3) + 1)
    assert sa("run", "--genes", "EPCAM,CD74").exit_code == 0
    np.testing.assert_array_equal(read_features(store, "drawn").matrix, matrix_of(3) + 1)
    assert sa("add", drawn_slide, "--features", "none").exit_code == 0
    ran = sa("run", "--genes", "EPCAM,CD74")
    assert ran.exit_code == 1
    assert "STPATH_GIGAPATH_WEIGHTS" in ran.stderr


def test_features_never_come_to_tiles_of_another_place(store: Store, foreign: Foreign, drawn_slide: Path) -> None:
    """Tiles of other tools' files are numbered: the ids say nothing of where they are."""
    row = Registry(store).add(drawn_slide, features=foreign([(0, 0), (300, 500)]))
    store_tiles(store, row, TileParameters().of_given(trident.read(str(row.features_uri), row).tiles))
    foreign([(0, 0), (700, 500)])
    with pytest.raises(
        FeatureError, match=r"^drawn: .* was changed since its tiles were taken; run: stpath-assets run drawn$"
    ):
        store_features(store, row, EncoderChoice("demo"))
    assert store.slide_ids("gigapath_features") == []
