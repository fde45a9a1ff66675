"""The tiles of a module's scan, and their features as this process computes them: what a served encoder must give."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.features.encoders.demo import DemoEncoder
from stpath_assets.slides import open_slide
from stpath_assets.tiles import Tiles, tile


@pytest.fixture(scope="module")
def tiles(scan: Path) -> Iterator[Tiles]:
    with open_slide(scan) as slide:
        yield tile(slide)


@pytest.fixture(scope="module")
def expected(tiles: Tiles) -> np.ndarray:
    return DemoEncoder().encode(np.stack(list(tiles.pixels())))
