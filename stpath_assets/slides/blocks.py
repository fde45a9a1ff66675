"""Reads pixels of one level of a TIFF, decoding it block by block (its tiles or strips).

Made for many threads that read neighbouring boxes: a block shared by several boxes is decoded about once, and the cache of
blocks has a memory limit. A damaged block is an error with its position, never a colour. Choosing the level, and messages for
the user, belong in `slide`.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from stpath_assets.errors import describe

CACHE_BYTES = 256 * 2**20
"""Maximum bytes of cached blocks of a scan: three rows of 256 px blocks that are 100,000 px wide."""

_FIRST_BYTES = 16 * 2**20  # fresh memory costs as much as decoding into it, so the cache starts small

_STRIP_BYTES = 2**20
# Values of the tags Compression (259) and PhotometricInterpretation (262).
_NONE, _JPEG, _APERIO_YCBCR = 1, (6, 7), 33003
_COLOUR_CODECS = (*_JPEG, _APERIO_YCBCR, 33004, 33005, 34712)  # whose decoders hand out RGB, or are seen to here
_RGB, _YCBCR = 2, 6
_END_OF_JPEG = b"\xff\xd9"
# Lossless, with no size of their own: LZW, deflate (two codes), LZMA, Zstandard.
_UNPACKERS = (5, 8, 32946, 34925, 50000)
_GLASS = 255

Block = npt.NDArray[np.uint8]


class BlockError(Exception):
    """A compressed block that cannot be decoded. `x`, `y` is its corner in the level's pixels."""

    def __init__(self, x: int, y: int, reason: str) -> None:
        super().__init__(f"block at x={x}, y={y} of the level: {reason}")
        self.x, self.y, self.reason = x, y, reason


class BlockCache:
    """A cache of decoded blocks of one scan, which drops the least recently used beyond a limit.

    The limit doubles, up to `most` bytes, when a dropped block is needed again. Threads that need the same block wait for the
    first of them, which decodes it. `decoded` counts decodes.
    """

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self.decoded = 0
        self._most, self._limit, self._bytes = most, min(most, _FIRST_BYTES), 0
        self._blocks: OrderedDict[object, Future[Block]] = OrderedDict()
        self._dropped: set[object] = set()
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of cached blocks."""
        return self._bytes

    def get(self, key: object, decode: Callable[[], Block]) -> Block:
        """Return the block of a key, decoding it if it is not cached. An error of `decode` is raised in all waiting threads."""
        with self._lock:
            held = self._blocks.get(key)
            if held is None:
                mine = self._blocks[key] = Future[Block]()
                self.decoded += 1
                self._grow_for(key)
            else:
                self._blocks.move_to_end(key)
        if held is not None:
            return held.result()
        try:
            block = decode()
        except BaseException as e:
            with self._lock:
                del self._blocks[key]
            mine.set_exception(e)
            raise
        mine.set_result(block)
        with self._lock:
            self._bytes += block.nbytes
            self._drop()
        return block

    def _grow_for(self, key: object) -> None:
        if key in self._dropped:
            self._limit = min(2 * self._limit, self._most)
            self._dropped.clear()  # one look back too far is one step, not one for each of its blocks

    def _drop(self) -> None:
        while self._bytes > self._limit:
            # Blocks that are being decoded are not counted yet.
            key = next(k for k, block in self._blocks.items() if block.done())
            self._bytes -= self._blocks.pop(key).result().nbytes
            self._dropped.add(key)


class BlockLevel:
    """A level of a TIFF. `page` is tifffile's page of 8-bit RGB, tiled or in strips. The levels of a scan share a cache.

    Safe for many threads. Blocks that the file declares as unscanned (offset and size 0, as Philips writes them) are glass, 255.
    Raises `ValueError` for other pixels, or too few blocks.
    """

    def __init__(self, page: Any, cache: BlockCache | None = None) -> None:
        frame = page.keyframe
        if frame.dtype != np.uint8 or frame.samplesperpixel != 3 or frame.planarconfig != 1 or frame.imagedepth != 1:
            raise ValueError("pixels are not interleaved 8-bit RGB")
        self._compression, self._is_tiled = int(frame.compression), bool(frame.is_tiled)
        if frame.photometric != _RGB and (frame.photometric != _YCBCR or self._compression not in _COLOUR_CODECS):
            raise ValueError(f"colours are {frame.photometric!r}, not RGB")
        self.cache = BlockCache() if cache is None else cache
        self.width, self.height = int(frame.imagewidth), int(frame.imagelength)
        self.block_width = int(frame.tilewidth) if frame.is_tiled else self.width
        self.block_height = int(frame.tilelength) if frame.is_tiled else min(int(frame.rowsperstrip), self.height)
        self._offsets, self._sizes = list(page.dataoffsets), list(page.databytecounts)
        self._file, self._decoder = page.parent.filehandle, frame.decode
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        self._is_plain = not frame.is_tiled and self._compression == _NONE and frame.predictor == frame.fillorder == 1
        self._declared = (self._sizes, self.block_height)
        if self._is_plain:
            self._split_strips()
        self._columns, rows = math.ceil(self.width / self.block_width), math.ceil(self.height / self.block_height)
        if min(len(self._offsets), len(self._sizes)) < self._columns * rows:
            raise ValueError(f"{len(self._offsets)} blocks of {self._columns * rows}: the header is damaged")
        self._file.set_lock(True)
        self._checks_end = self._compression in _JPEG and self._first_has_an_end()

    def read(self, x: int, y: int, width: int, height: int) -> Block:
        """Return the pixels of a box inside the level, in its own pixels: (height, width, 3) uint8 RGB.

        Raises `BlockError` for the first block, in row-major order, that cannot be decoded.
        """
        if not (0 <= x <= x + width <= self.width and 0 <= y <= y + height <= self.height):
            raise ValueError(f"box ({x}, {y}, {width}, {height}) leaves {self.width} by {self.height} pixels")
        out = np.empty((height, width, 3), np.uint8)
        for index, left, top in self.blocks_of(x, y, width, height):
            block = self.cache.get((id(self), index), lambda i=index, at=(left, top): self._decode(i, *at))  # type: ignore[misc]
            x0, y0 = max(x, left), max(y, top)
            x1, y1 = min(x + width, left + self.block_width), min(y + height, top + self.block_height)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def blocks_of(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """Return index, left and top edge of each block that a box touches, row-major."""
        if width and height:
            for row in range(y // self.block_height, (y + height - 1) // self.block_height + 1):
                for column in range(x // self.block_width, (x + width - 1) // self.block_width + 1):
                    yield row * self._columns + column, column * self.block_width, row * self.block_height

    def compressed(self, index: int) -> bytes:
        """Return the bytes of a block in the file; fewer than its header says if the file ends early."""
        offset, size = self._offsets[index], self._sizes[index]
        if self._file.is_file and hasattr(os, "pread"):  # keeps no position, so that threads read side by side
            return os.pread(self._file.fileno(), size, offset)
        with self._file.lock:
            self._file.seek(offset)
            return bytes(self._file.read(size))

    def find_odd_block(self) -> str | None:
        """Return how the size of blocks differs from what the header declares, or None. Decodes the first block at most.

        A damaged header may declare blocks of another shape than the file holds, so that all would come out sheared or cut.
        Uncompressed blocks have an exact size in bytes, others have a size of their own or unpack to an exact size. A block
        that cannot be decoded is reported when it is read.
        """
        sizes, block_height = self._declared
        index = next((i for i, size in enumerate(sizes) if size), None)
        if index is None:
            return None
        row_bytes = self.block_width * 3

        def height_of(i: int) -> int:
            """Return the rows that a block holds: tiles are padded, the last strip is cut."""
            return block_height if self._is_tiled else min(block_height, self.height - i * block_height)

        if self._compression == _NONE:
            odd = ((size, height_of(i) * row_bytes) for i, size in enumerate(sizes) if size)
            held, needed = next(((h, n) for h, n in odd if h != n), (0, 0))
            return f"has a block of {held} bytes where its pixels take {needed}" if held else None
        try:
            data = self.compressed(index)
            if self._compression in _UNPACKERS:
                held, needed = len(tifffile.TIFF.DECOMPRESSORS[self._compression](data)), height_of(index) * row_bytes
                return (
                    f"has a block that unpacks to {held} bytes where its pixels take {needed}"
                    if held != needed
                    else None
                )
            if self._compression not in _COLOUR_CODECS or self._tables["jpegheader"]:
                return None
            if self._compression in _JPEG:
                height, width = _size_of_jpeg(data)
            else:
                height, width = self._decoder(data, index, **self._tables)[0][0].shape[:2]
        except Exception:  # codecs raise types of their own; the damage is reported with its place when it is read
            return None
        if width == self.block_width and (height == height_of(index) or not self._is_tiled):
            return None
        return (
            f"has a block of {width} by {height} pixels where its header says {self.block_width} by {height_of(index)}"
        )

    def _decode(self, index: int, left: int, top: int) -> Block:
        wanted = (min(self.block_height, self.height - top), min(self.block_width, self.width - left))
        if self._offsets[index] == self._sizes[index] == 0:
            return np.full((*wanted, 3), _GLASS, np.uint8)
        try:
            data = self.compressed(index)
            if len(data) < self._sizes[index]:
                raise EOFError("the file ends within it")
            if self._checks_end and not _has_an_end(data):
                # libjpeg silently fills missing data with grey.
                raise EOFError("its JPEG data stop early")
            block = self._pixels(data, index, wanted)
            if block.shape[0] < wanted[0] or block.shape[1] < wanted[1] or block.shape[2:] != (3,):
                raise ValueError(f"holds {block.shape[1]} by {block.shape[0]} pixels, not {wanted[1]} by {wanted[0]}")
        except Exception as e:  # codecs raise types of their own
            raise BlockError(left, top, describe(e)) from e
        return block

    def _pixels(self, data: bytes, index: int, wanted: tuple[int, int]) -> Block:
        if self._is_plain:
            return np.frombuffer(data, np.uint8, math.prod(wanted) * 3).reshape(*wanted, 3)
        decoded = self._decoder(data, index, **self._tables)[0][0]
        if self._compression == _APERIO_YCBCR:  # its JPEG 2000 does not say so itself; tifffile leaves it as it is
            return np.asarray(Image.fromarray(decoded, "YCbCr").convert("RGB"))
        return np.asarray(decoded)

    def _split_strips(self) -> None:
        """Split uncompressed strips, which can be read in part: ImageJ writes a whole image as one strip."""
        row_bytes = self.width * 3
        rows = max(1, min(self.block_height, _STRIP_BYTES // row_bytes))
        offsets, sizes = [], []
        for strip, offset in enumerate(self._offsets):
            in_strip = min(self.block_height, self.height - strip * self.block_height)
            if self._sizes[strip] < in_strip * row_bytes or (in_strip % rows and strip + 1 < len(self._offsets)):
                return
            for first in range(0, in_strip, rows):
                offsets.append(offset + first * row_bytes)
                sizes.append(min(rows, in_strip - first) * row_bytes)
        self._offsets, self._sizes, self.block_height = offsets, sizes, rows

    def _first_has_an_end(self) -> bool:
        """Return whether this file's JPEG data end with a marker, as the format requires. If so, a block without it is
        damaged.
        """
        first = next((i for i, size in enumerate(self._sizes) if size), None)
        return first is not None and _has_an_end(self.compressed(first))


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    """Return height and width from the frame header of JPEG data (ITU T.81, B.2.2). Raises `ValueError` or `IndexError`."""
    at = 2
    while data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    raise ValueError("no frame header")


def _has_an_end(data: bytes) -> bool:
    """Return whether JPEG data end with a marker: end of image, or for a part of one, as in NDPI, a restart marker."""
    # Padding may follow the end of image, so search from the end.
    return data.rfind(_END_OF_JPEG) >= 0 or (data[-2:-1] == b"\xff" and 0xD0 <= data[-1] <= 0xD7)
