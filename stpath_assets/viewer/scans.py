"""The scans that the viewer has open: a few, the least recently shown of which is closed first."""

from collections import OrderedDict
from threading import Lock

from stpath_assets.errors import SlideError
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store
from stpath_assets.viewer.pyramid import Pyramid

MOST_OPEN = 4


class Scans:
    """Open scans of a data root, by slide."""

    def __init__(self, store: Store) -> None:
        self._registry, self._open, self._lock = Registry(store), OrderedDict[str, Pyramid](), Lock()

    def row(self, slide_id: str) -> Registered:
        """Return a slide's row. Raises `SlideError` if there is no such slide in the lake, or if it is retired."""
        return self._registry.choose([slide_id])[0]

    def pyramid(self, slide_id: str) -> Pyramid:
        """Return a slide's deep zoom. Raises `SlideError` if its scan is missing, or another than was registered."""
        row = self.row(slide_id)
        key = f"{row.sha256} {row.mpp_xy} {row.uri}"
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        if (why := row.trouble()) is not None:
            raise SlideError(f"{slide_id}: {why}")
        opened = Pyramid(row.open())
        with self._lock:
            # Not closed by name: another thread may still read it. Its file closes when the last one is done.
            kept = self._open.setdefault(key, opened)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return kept
