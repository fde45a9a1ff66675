"""Pictures: where they go, that the same one is the same file, and that they know what they were made from."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpath_assets.storage import pictures
from tests.conftest import tissue_image
from tests.evaluation.test_figures import scatter
from tests.prediction.test_maps import expression_map


def decoded(uri: str) -> Image.Image:
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    content = base64.b64decode(uri.removeprefix(prefix))
    assert len(content) <= 50_000
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("gene", "name"),
    [("EPCAM", "map_EPCAM.png"), ("HLA-DRB1", "map_HLA-DRB1.png"), ("RP11-34P13.7", "map_RP11-34P13.7.png")],
)
def test_where_a_figure_belongs(tmp_path: Path, gene: str, name: str) -> None:
    assert pictures.path_of(tmp_path, "C2", "map", gene) == tmp_path / "figures" / "C2" / name


@pytest.mark.parametrize("gene", ["../../x", "a/b", "a\0b", "a b", "µ", "a:b"])
def test_no_gene_leads_out_of_its_slides_folder(tmp_path: Path, gene: str) -> None:
    path = pictures.path_of(tmp_path, "C2", "map", gene)
    assert path.resolve().parent == tmp_path.resolve() / "figures" / "C2"
    assert path.name.isascii()


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    for draw in (expression_map, scatter):
        one = pictures.save(draw(), tmp_path / "one" / "a.png", "x").read_bytes()
        assert pictures.save(draw(), tmp_path / "two" / "a.png", "x").read_bytes() == one
        assert pictures.save(draw(demo=True), tmp_path / "two" / "a.png", "x").read_bytes() != one
        assert b"matplotlib" not in one.lower()


def test_a_figure_knows_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert not pictures.is_current(path, "digest")
    pictures.save(scatter(), path, "digest")
    assert pictures.is_current(path, "digest")
    assert not pictures.is_current(path, "another")
    whole = path.read_bytes()
    for keep in (0, 4, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:keep])
        assert not pictures.is_current(path, "digest"), keep


def test_a_picture_for_a_metadata_panel_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), np.uint8)
    picture = decoded(pictures.small_jpeg(noise, 640))
    assert picture.size == (640, 320)
    assert decoded(pictures.small_jpeg(tissue_image(100, 80))).size == (80, 100), "nothing is enlarged"
    pictures.save(expression_map(), tmp_path / "a.png", "x")
    assert max(decoded(pictures.small_jpeg_of(tmp_path / "a.png", 300)).size) == 300
