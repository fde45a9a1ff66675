"""What all tests share: drawn slides with known scale and tissue, the small STPath weights, and the real slides if there.

Nothing here downloads; tests marked `shared` skip where the folder beside the checkout is missing.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tests.roots import (  # noqa: F401
    blank_pictures,
    empty_root,
    empty_store,
    finished,
    finished_home,
    migrations_are_read_once,
)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo is made by whoever asks for it first, and takes half a minute: begin with it, so that the other process does
    something else meanwhile.
    """
    items.sort(key=lambda item: "pipeline/test_demo" not in item.nodeid)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's settings or data root."""
    for name in [n for n in os.environ if n.startswith(("STPATH_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STPATH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real slides and golden outputs."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


def tissue_image(
    height: int = 1200, width: int = 1600, seed: int = 0, box: tuple[int, int, int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """White glass with a textured pink and purple rectangle, (H, W, 3): its box (top, left, bottom, right) is known."""
    rng = np.random.default_rng(seed)
    top, left, bottom, right = box or (height // 4, width // 4, height * 3 // 4, width * 3 // 4)
    image = np.full((height, width, 3), 242, np.uint8)
    spots = rng.random(((bottom - top + 7) // 8, (right - left + 7) // 8)) < 0.5
    dark = np.kron(spots, np.ones((8, 8), bool))[: bottom - top, : right - left]
    colours = np.where(dark[..., None], (90, 50, 140), (225, 140, 185)) + rng.integers(-8, 8, (*dark.shape, 3))
    image[top:bottom, left:right] = colours.clip(0, 255)
    return image


Mpp = float | tuple[float, float] | None


def write_tiff(path: Path, image: npt.NDArray, mpp: Mpp = 0.5, levels: int = 1, **options: object) -> Path:
    """A tiled TIFF with `mpp` (of x and y) in its resolution tags, and `levels` of a pyramid by factors of 4."""
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    resolution = {} if x is None or y is None else {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
    common = {"tile": (256, 256), "photometric": "rgb", **resolution, **options}
    with tifffile.TiffWriter(path) as tif:
        tif.write(image, subifds=levels - 1, **common)
        for i in range(1, levels):
            factor = 4**i
            h, w = image.shape[0] // factor * factor, image.shape[1] // factor * factor
            small = image[:h, :w].reshape(h // factor, factor, w // factor, factor, 3).mean((1, 3))
            tif.write(small.round().astype(np.uint8), subfiletype=1, **common)
    return path


@pytest.fixture
def drawn_slide(tmp_path: Path) -> Path:
    """A scan of 1600 x 1200 px at 0.5 µm/px whose middle half is tissue."""
    return write_tiff(tmp_path / "drawn.tif", tissue_image())


@pytest.fixture
def slide_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a scan of an image under a name: `slide_of("a.tif", image, mpp=…)`."""

    def write(name: str, image: npt.NDArray | None = None, mpp: Mpp = 0.5, **options: object) -> Path:
        return write_tiff(tmp_path / name, tissue_image() if image is None else image, mpp, **options)

    return write
