"""An open scan: its header, scale and pixels, from any supported file or URL.

The scale comes from the file or the user and is never guessed (`scale`). A backend reads the pixels (`formats`). Label and macro
images and free-text tags stay in the file. The register of many scans belongs in `registry`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import SlideError, describe
from stpath_assets.slides import scale
from stpath_assets.slides.formats import Backend, open_backend
from stpath_assets.slides.resampling import shrink
from stpath_assets.slides.source import Source, content_of
from stpath_assets.storage import pictures
from stpath_assets.threads import map_ahead

_FINEST_PX = 8
"""Side of the smallest box, in output pixels, at which a damaged part of a scan is located."""

_MAGENTA = (255, 0, 255)  # no stain and no pen has it


@dataclass(repr=False)
class Slide:
    """An open scan. Coordinates are level-0 pixels, x to the right and y down.

    `mpp_xy` is µm per pixel at level 0 along x and y; `mpp_source` says where it comes from (`file` or `user`). `mpp_file` is the
    file's value. `warnings` holds what a user should know before trusting the scan. `uri` is the path or URL as given, `path` the
    local path, or the path within the URL. `vendor` is from a fixed list and `objective_power` is a number; no other text of the
    file is kept.
    """

    path: Path
    name: str
    width_px: int
    height_px: int
    mpp_xy: scale.Mpp
    mpp_source: str
    mpp_file: float | None
    vendor: str | None
    level_downsamples: tuple[float, ...]
    level_dimensions: tuple[tuple[int, int], ...]
    warnings: list[str] = field(default_factory=list)
    objective_power: float | None = None
    uri: str = ""
    _backend: Backend | None = field(default=None, repr=False)

    @property
    def mpp(self) -> float:
        """µm per pixel at level 0; the mean of x and y if pixels are not square."""
        return scale.mean(self.mpp_xy)

    @property
    def given_mpp(self) -> scale.Mpp | None:
        """The scale that did not come from the file, x and y, or None."""
        return None if self.mpp_source == "file" else self.mpp_xy

    @property
    def backend(self) -> str:
        """The reader: `tiffslide`, `openslide` or `image`."""
        return self._open_backend.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The local files of the scan; empty if it is read from a URL."""
        return tuple(self._open_backend.files)

    def content(self) -> tuple[str, int]:
        """Return SHA-256 and size in bytes of all the scan's files (see `source.content_of`)."""
        files = self._open_backend.files
        return content_of(files) if files else Source(self.uri).content()

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return the pixels of a box inside a level, in the level's pixels: (height, width, 3) uint8 RGB.

        Raises `SlideError` with the box if it cannot be decoded. Pixels are never made up.
        """
        level_width, level_height = self.level_dimensions[level]
        if not (0 <= x <= x + width <= level_width and 0 <= y <= y + height <= level_height):
            raise ValueError(f"box ({x}, {y}, {width}, {height}) leaves level {level} of {self.name}")
        try:
            pixels = self._open_backend.read_level(level, x, y, width, height)
        except Exception as e:  # codecs raise types of their own; every one means the same to the user
            downsample = self.level_downsamples[level]
            said = describe(e)
            why = "the file is damaged" if self._open_backend.files else "the file is damaged or cannot be reached"
            raise SlideError(
                f"{self.name}: level {level} cannot be read at x={math.ceil(x * downsample)}, y={math.ceil(y * downsample)} "
                f"({said}); {why}, copy or scan it again"
            ) from e
        return np.ascontiguousarray(pixels)

    def read_scaled(self, mpp: float, box_px: int = 1024) -> npt.NDArray[np.uint8]:
        """Return the whole scan at about `mpp` µm per pixel, averaged by area, as (H, W, 3) uint8.

        Its shape is `scaled_shape`. Its pixels are square, even if the scan's are not. Threads read boxes of about `box_px`,
        so that memory does not grow with the scan, from the smallest level that is at least as fine. The level depends only
        on the scan.
        """
        return self._scaled(mpp, box_px, None)

    def read_scaled_partly(self, mpp: float, box_px: int = 1024) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Read a damaged scan as `read_scaled` does. Returns the image, and a mask (H, W), True where it could not be read.

        Unreadable pixels are 255 in the image and must be ignored.
        """
        unreadable = np.zeros(self.scaled_shape(mpp), bool)
        return self._scaled(mpp, box_px, unreadable), unreadable

    def scaled_shape(self, mpp: float) -> tuple[int, int]:
        """Return height and width of the whole scan at about `mpp` µm per pixel: round(size · slide mpp / mpp), at least 1."""
        x, y = self.mpp_xy
        return max(1, round(self.height_px * y / mpp)), max(1, round(self.width_px * x / mpp))

    def _scaled(self, mpp: float, box_px: int, unreadable: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.uint8]:
        """Read the scan. Raises `SlideError` for what cannot be read, or marks it in `unreadable` if given."""
        height, width = self.scaled_shape(mpp)
        level = self.level_for(mpp)
        level_width, level_height = self.level_dimensions[level]
        fx, fy = level_width / width, level_height / height
        out = np.empty((height, width, 3), np.uint8)

        def fill(top: int, bottom: int, left: int, right: int) -> None:
            x, y = math.floor(left * fx), math.floor(top * fy)
            x_end, y_end = min(math.ceil(right * fx), level_width), min(math.ceil(bottom * fy), level_height)
            try:
                pixels = self.read_level(level, x, y, x_end - x, y_end - y)
            except SlideError:
                if unreadable is None:
                    raise
                if max(bottom - top, right - left) <= _FINEST_PX:
                    unreadable[top:bottom, left:right] = True
                    out[top:bottom, left:right] = 255
                    return
                for part in _quarters(top, bottom, left, right):
                    fill(*part)
                return
            box = (left * fx - x, top * fy - y, (right - left) * fx, (bottom - top) * fy)
            out[top:bottom, left:right] = shrink(pixels, *box, right - left, bottom - top)

        rows, columns = max(1, int(box_px / fy)), max(1, int(2 * box_px / fx))
        boxes = (
            (top, min(top + rows, height), left, min(left + columns, width))
            for top in range(0, height, rows)
            for left in range(0, width, columns)
        )
        for _ in map_ahead(lambda box: fill(*box), boxes):
            pass
        return out

    def level_for(self, mpp: float) -> int:
        """Return the coarsest level that is at least as fine as `mpp` along x and y, or level 0 if there is none."""
        # Tolerate 0.1 %: level sizes are rounded to whole pixels, so a "4x" level is rarely exactly 4x.
        fine = [i for i, d in enumerate(self.level_downsamples) if max(self.mpp_xy) * d <= mpp * 1.001]
        return max(fine, key=lambda i: self.level_downsamples[i], default=0)

    def thumbnail(self, longest_px: int = 768, partly: bool = False) -> npt.NDArray[np.uint8]:
        """Return the scan fitted into a square of `longest_px`, (H, W, 3) uint8. With `partly`, unreadable parts are magenta."""
        x, y = self.mpp_xy
        mpp = max(self.width_px * x, self.height_px * y) / longest_px
        if not partly:
            return self.read_scaled(mpp)
        image, unreadable = self.read_scaled_partly(mpp)
        image[unreadable] = _MAGENTA
        return image

    def close(self) -> None:
        """Close the file."""
        self._open_backend.close()

    @property
    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise ValueError(f"{self.name}: open a scan with open_slide")
        return self._backend

    def __repr__(self) -> str:
        size = f"{self.width_px} × {self.height_px} px"
        return f"<slide {self.name}: {size}, {self.mpp:.4g} µm/px ({self.mpp_source}), {len(self.level_dimensions)} levels>"

    def _repr_html_(self) -> str:
        x, y = self.mpp_xy
        facts = {
            "size": f"{self.width_px} × {self.height_px} px, {self.width_px * x / 1000:.1f} × {self.height_px * y / 1000:.1f} mm",
            "scale": f"{scale.text(self.mpp_xy, '.4g')} µm/px ({self.mpp_source})",
            "levels": len(self.level_dimensions),
            "reader": self.backend,
            **({"note": " ".join(self.warnings)} if self.warnings else {}),
        }
        try:
            image = self.thumbnail(220, partly=True)
        except (ValueError, OSError):  # closed
            image = None
        return pictures.card(self.name, facts, image)

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_slide(path: str | Path, mpp: float | scale.Mpp | None = None) -> Slide:
    """Open a scan: a file or a URL (s3://, gs://, https://).

    `mpp` (µm per pixel at level 0, or a pair of x and y) is for scans whose file has no scale. If both are given, it wins, with a
    warning if they differ by more than 5 %. A scale that contradicts the objective, and pixels that are not square, are warnings
    too.

    Raises `SlideError` if the file is missing, not a scan, truncated, or has other pixels than 8-bit RGB, and `ScaleError` if
    the scale is missing or outside the range of microscope scans.
    """
    source = Source(path)
    backend = open_backend(source)
    try:
        name, power = source.name, backend.objective_power
        in_file, complaint = scale.of_file(backend.mpp)
        used, origin, warnings = scale.choose(name, scale.given_as(mpp), in_file, complaint)
        warnings += scale.against_square(name, used)
        warnings += scale.against_objective(name, used, origin, power)
        width_px, height_px = backend.level_dimensions[0]
        return Slide(
            source.path, name, width_px, height_px, used, origin, None if in_file is None else scale.mean(in_file),
            backend.vendor, backend.level_downsamples, backend.level_dimensions, warnings, power, source.uri, backend,
        )  # fmt: skip
    except BaseException:
        backend.close()
        raise


def _quarters(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int, int, int]]:
    """Split a box into four, or into two if it is one pixel high or wide."""
    middle, centre = (top + bottom + 1) // 2, (left + right + 1) // 2
    rows = [(top, middle), (middle, bottom)]
    columns = [(left, centre), (centre, right)]
    return [(*r, *c) for r in rows for c in columns if r[0] < r[1] and c[0] < c[1]]
