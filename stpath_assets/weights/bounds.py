"""Bounds of a checkpoint that torch unpickles: that it is no bomb which a few kilobytes blow up.

Which classes may be made, torch decides (`weights_only`): tensors and containers. Here, entries of a zip must not be compressed,
and a pickle may have only so many operations.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from stpath_assets.errors import WeightsError

MOST_OPERATIONS = 2_000_000
"""Most operations of a checkpoint's pickle. GigaPath's thousand tensors take about 30,000."""

_MOST_PICKLE_BYTES = 64 << 20
_OLD_PICKLES = 5  # of the format before 2020: magic number, protocol, system, the state dict, the keys of its storages


def check(path: Path) -> None:
    """Raise `WeightsError` if a checkpoint is compressed, larger than its file, or its pickle has too many operations."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            _check_old(path, file)
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise WeightsError(f"{path.name}: has compressed entries, which torch does not write; fetch it again")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            raise WeightsError(f"{path.name}: its entries are larger than the file; fetch it again")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > _MOST_PICKLE_BYTES:
                    raise WeightsError(
                        f"{path.name}: its pickle has {entry.file_size} bytes; save `model.state_dict()`"
                    )
                with archive.open(entry) as opened:
                    _count(path, cast(BinaryIO, opened), MOST_OPERATIONS)


def _check_old(path: Path, file: BinaryIO) -> None:
    left = MOST_OPERATIONS
    for _ in range(_OLD_PICKLES):
        left = _count(path, file, left)


def _count(path: Path, file: BinaryIO, left: int) -> int:
    """Read one pickle without executing it, and return how many operations are left."""
    for _ in pickletools.genops(file):
        left -= 1
        if left < 0:
            raise WeightsError(
                f"{path.name}: its pickle has more than {MOST_OPERATIONS:,} operations; save `model.state_dict()`"
            )
    return left
