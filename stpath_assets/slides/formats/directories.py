"""Checks the directories of a TIFF before a parser follows them: that they end, and declare no more than the file holds.

Parsers follow a directory that points back to an earlier one for ever, or make room for as many values as a tag claims.
Only offsets, counts and types are read here (TIFF 6.0, section 2; BigTIFF; the 8-byte offsets of NDPI).
"""

import struct
from typing import BinaryIO

from stpath_assets.errors import SlideError

MAX_DIRECTORIES = 10_000
"""Most directories of a scan: a pyramid, its side images, and a focus series of thousands."""

_MAX_TAGS, _MAX_DEPTH = 4096, 8
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by its type."""

_SUB_DIRECTORIES, _NDPI = 330, 65420
_FOUR_GB = 1 << 32


def check_directories(name: str, file: BinaryIO, size: int | None) -> None:
    """Raise `SlideError` if the directories of a TIFF go in circles, are too many, or a tag has more values than the file bytes.

    `size` is the size of the file in bytes, None if unknown.
    """
    try:
        file.seek(0)
        header = file.read(16)
        order = {b"II": "<", b"MM": ">"}[header[:2]]
        is_big = struct.unpack_from(f"{order}H", header, 2)[0] == 43
        first = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", header, 8 if is_big else 4)[0]
        walk = _Walk(name, file, size, order, is_big)
        if size is not None and size >= _FOUR_GB and not is_big:
            # Only NDPI of this size has another form than BigTIFF: all offsets of its directories take 8 bytes.
            (first,) = struct.unpack_from(f"{order}Q", header, 4)
            walk.is_ndpi = True
        walk.follow(first, ())
    except struct.error as e:
        raise SlideError(f"{name}: is truncated within its header; copy it again") from e


class _Walk:
    """The directories of an open file that were seen."""

    def __init__(self, name: str, file: BinaryIO, size: int | None, order: str, is_big: bool) -> None:
        self._name, self._file, self._size, self._order, self._is_big = name, file, size, order, is_big
        self._seen, self.is_ndpi = set[int](), False

    def follow(self, at: int, above: tuple[set[int], ...]) -> None:
        """Follow a chain of directories to its end. `above` holds the chains up to the directory that names this one.

        A directory that another chain has is no circle: writers link the parts of a list of sub-directories as well.
        """
        chain = set[int]()
        while at and (at in chain or at not in self._seen or any(at in c for c in above)):
            if at in chain or any(at in c for c in above) or len(above) > _MAX_DEPTH:
                raise SlideError(
                    f"{self._name}: its directories go in circles; it is damaged, copy or convert it again"
                )
            if len(self._seen) == MAX_DIRECTORIES:
                raise SlideError(
                    f"{self._name}: has over {MAX_DIRECTORIES} directories; it is damaged, convert it again"
                )
            if self._size is not None and at >= self._size:
                raise SlideError(f"{self._name}: is truncated: {self._size} bytes, a directory at {at}; copy it again")
            chain.add(at)
            self._seen.add(at)
            at, below = self._read(at)
            for sub in below:
                self.follow(sub, (*above, chain))

    def _read(self, at: int) -> tuple[int, list[int]]:
        """Return the offsets of the directory that follows the one at `at`, 0 if none, and of its sub-directories."""
        number, offset, entry = ("Q", "Q", 20) if self._is_big else ("H", "I", 12)
        self._file.seek(at)
        (count,) = struct.unpack(f"{self._order}{number}", self._file.read(struct.calcsize(number)))
        if count > _MAX_TAGS:
            raise SlideError(
                f"{self._name}: a directory declares {count} tags; it is damaged, copy or convert it again"
            )
        raw, below = self._file.read(count * entry + 8), list[int]()
        for i in range(count):
            code, kind = struct.unpack_from(f"{self._order}HH", raw, i * entry)
            (values,) = struct.unpack_from(f"{self._order}{offset}", raw, i * entry + 4)
            if self._size is not None and values * _SIZES.get(kind, 1) > self._size:
                raise SlideError(
                    f"{self._name}: tag {code} declares {values} values, more than its {self._size} bytes hold; "
                    "it is damaged, copy or convert it again"
                )
            self.is_ndpi = self.is_ndpi or code == _NDPI
            if code == _SUB_DIRECTORIES:
                below += self._offsets(kind, values, raw[i * entry + (12 if self._is_big else 8) : (i + 1) * entry])
        following = "Q" if self.is_ndpi else offset
        return struct.unpack_from(f"{self._order}{following}", raw, count * entry)[0], below

    def _offsets(self, kind: int, values: int, field: bytes) -> list[int]:
        """Return the offsets that a tag holds, in its field or elsewhere in the file."""
        each = {4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if each is None or values > MAX_DIRECTORIES:
            return []
        needed = values * struct.calcsize(each)
        if needed > len(field):
            self._file.seek(struct.unpack(f"{self._order}{'Q' if self._is_big else 'I'}", field)[0])
            field = self._file.read(needed)
        return list(struct.unpack_from(f"{self._order}{values}{each}", field))
