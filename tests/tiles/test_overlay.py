"""The picture of a slide's tiles: where they are drawn, and in which colour."""

import numpy as np
import numpy.typing as npt

from stpath_assets.tiles.overlay import draw_tiles


def test_tiles_are_drawn_where_they_are_in_the_colour_of_what_became_of_them() -> None:
    image: npt.NDArray[np.uint8] = np.full((120, 160, 3), 255, np.uint8)
    before = image.copy()
    mask = np.zeros((120, 160), bool)
    mask[60:110, 80:150] = True
    corners = {"kept": np.array([[400.0, 200.0]]), "pen": np.array([[0.0, 0.0]])}
    drawn = draw_tiles(image, (1600, 1200), mask, corners, (224.0, 224.0), longest_px=320)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape[1] == 320
    assert drawn.shape[0] > 240, "a legend below"
    changed = (drawn[:240] != 255).any(2)
    kept, pen, tissue = changed[30:100, 60:140], drawn[10:40, 10:40], drawn[115:225, 155:305]
    rows, columns = np.nonzero(kept)
    assert (rows.min() + 30, columns.min() + 60) == (40, 80)
    assert (rows.max() + 30, columns.max() + 60) in ((84, 124), (85, 125))
    assert not changed[45:80, 85:120].any(), "an outline, not a filled square"
    assert (pen[..., 0].astype(int) - pen[..., 2] > 50).all(), "filled in orange"
    outline = (tissue < 60).all(2)
    assert outline.any()
    assert not outline[20:-20, 20:-20].any()
