"""Finished pieces of a slide's incomplete features, from which a killed run resumes.

A piece is one complete file of consecutive tiles. It is stored under the digest of what the features are made from, so pieces of
another scan, grid or encoder are never used. Complete features belong in `storage`.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import GIGAPATH_FEATURES

UNFINISHED = "unfinished"
"""Folder of the data root that holds pieces."""


class Parts:
    """The pieces of one slide's features, of `size` tiles each, computed in batches of `batch_size`."""

    def __init__(self, store: Store, slide_id: str, digest: str, batch_size: int, size: int) -> None:
        self._of_slide = store.home / UNFINISHED / GIGAPATH_FEATURES.name / slide_id
        self._folder = self._of_slide / f"{digest[:32]}-{batch_size}-{size}"
        self.size = size

    def read(self) -> npt.NDArray[np.float32] | None:
        """Return the features of the leading tiles that are done, (M, 1536) float32, or None.

        A damaged piece and all pieces after it count as not done.
        """
        pieces: list[npt.NDArray[np.float32]] = []
        while (path := self._path(len(pieces))).exists():
            try:
                pieces.append(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))
            except (ValueError, EOFError):
                break
        return np.concatenate(pieces) if pieces else None

    def write(self, first: int, piece: npt.NDArray[np.float32]) -> None:
        """Save the features of the tiles from `first` on, a multiple of `size`."""
        with atomic_file(self._path(first // self.size)) as draft:
            with draft.open("wb") as f:
                np.save(f, piece, allow_pickle=False)

    def clear(self) -> None:
        """Remove all pieces of the slide, including those of earlier fingerprints."""
        shutil.rmtree(self._of_slide, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npy"
