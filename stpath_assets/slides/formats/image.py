"""Reads PNG and JPEG with Pillow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from stpath_assets.errors import SlideError
from stpath_assets.slides.formats.base import plainly
from stpath_assets.slides.source import Source

MAX_IMAGE_PX = 1 << 29
"""Largest PNG or JPEG, pixels. It is decoded as a whole, into 1.5 GiB."""

MAX_PX_PER_BYTE = 400
"""Maximum pixels per byte of a PNG or baseline JPEG: deflate expands at most 1032 times, which is 344 RGB pixels."""

_PNG_RGB8 = (8, 2)  # bit depth and colour type of the header
_PNG_KINDS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGB with an alpha channel"}


class ImageBackend:
    """A PNG or JPEG, decoded as a whole on opening. It has no usable scale. See `base.Backend`."""

    name = "image"
    mpp: tuple[float, float] | None = None
    objective_power: float | None = None
    vendor: str | None = None

    def __init__(self, source: Source) -> None:
        """Open an image. Raises `SlideError` if it is truncated, is not 8-bit RGB, or declares more pixels than it can hold."""
        path = source.local()
        try:
            # Pillow's class directly, because Image.open refuses sizes that are normal for scans.
            with _plugin(path)(path) as image:
                _check_image(source.name, path, image)
                self._pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as e:
            raise SlideError(f"{source.name}: is truncated or damaged ({plainly(e)}); copy it again") from e
        height, width = self._pixels.shape[:2]
        self.level_dimensions: tuple[tuple[int, int], ...] = ((width, height),)
        self.level_downsamples: tuple[float, ...] = (1.0,)
        self.files: Sequence[Path] = () if source.is_remote else (path,)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """See `base.Backend`."""
        return np.array(self._pixels[y : y + height, x : x + width])

    def close(self) -> None:
        """Release the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


def _plugin(path: Path) -> type[ImageFile.ImageFile]:
    with path.open("rb") as f:
        return PngImagePlugin.PngImageFile if f.read(1) == b"\x89" else JpegImagePlugin.JpegImageFile


def _check_image(name: str, path: Path, image: ImageFile.ImageFile) -> None:
    kind = f"{image.mode}"
    rgb = image.mode == "RGB"
    if isinstance(image, PngImagePlugin.PngImageFile):
        # Pillow silently converts 16-bit RGB to 8-bit.
        depth, colour = path.open("rb").read(26)[24:]
        rgb, kind = (depth, colour) == _PNG_RGB8, f"{depth}-bit {_PNG_KINDS.get(colour, 'of unknown colours')}"
    if not rgb:
        kind = {"L": "greyscale", "YCCK": "CMYK"}.get(kind, kind)
        raise SlideError(f"{name}: is {kind}; H&E scans are 8-bit RGB, convert it first")
    width, height = image.size
    if width * height > MAX_PX_PER_BYTE * path.stat().st_size:
        raise SlideError(f"{name}: declares {width} by {height} pixels, more than its bytes can hold; it is damaged")
    if width * height > MAX_IMAGE_PX:
        raise SlideError(
            f"{name}: {width} by {height} pixels are too many for one PNG or JPEG; convert it to a pyramidal TIFF"
        )
