"""A registered slide: a row of the table `slides`, from which every later stage starts."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stpath_assets.errors import SlideError
from stpath_assets.slides.scale import Mpp
from stpath_assets.slides.slide import Slide, open_slide
from stpath_assets.slides.source import Source, is_url
from stpath_assets.storage import SLIDE_ID, fingerprint
from stpath_assets.storage.fingerprint import Fingerprint

CODE_VERSION = "2"
_SUFFIXES = re.compile(
    r"(\.ome)?\.(svs|tiff?|ndpi|scn|mrxs|vms|vmu|bif|qptiff|btf|tf8|svslide|czi|dcm|png|jpe?g)$", re.IGNORECASE
)
_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".dcm")
MAX_ID = 120


@dataclass(frozen=True)
class Registered:
    """A row of `slides`. Units and meanings are in `tables.SLIDES`."""

    slide_id: str
    uri: str
    sha256: str
    size_bytes: int
    width_px: int
    height_px: int
    mpp: float
    mpp_source: str
    mpp_file: float | None
    vendor: str | None
    levels: int
    organ: str | None
    tech: str | None
    spots_uri: str | None
    status: str
    reason: str | None
    warnings: Sequence[str]
    registered_at: datetime
    # Earlier versions did not store it.
    objective_power: float | None = None
    backend: str = "tiffslide"
    regions_uri: str | None = None
    features_uri: str | None = None
    mpp_x: float | None = None
    mpp_y: float | None = None
    patient_id: str | None = None
    cohort: str | None = None
    modified_ns: int | None = None
    asked_encoder: str | None = None
    asked_genes: str | None = None
    asked_models: str | None = None
    asked_context: str | None = None
    more: str | None = None
    arrival: str | None = None

    @property
    def given_mpp(self) -> Mpp | None:
        """The scale that did not come from the file, x and y, or None."""
        return None if self.mpp_source == "file" else self.mpp_xy

    @property
    def mpp_xy(self) -> Mpp:
        """The scale in use, along x and y."""
        return (self.mpp, self.mpp) if self.mpp_x is None or self.mpp_y is None else (self.mpp_x, self.mpp_y)

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint from which every later stage starts: content and scale."""
        x, y = self.mpp_xy
        sides = {} if x == y else {"slide_mpp_x": x, "slide_mpp_y": y}
        return fingerprint.start(slide_sha256=self.sha256, slide_mpp=self.mpp, slides_code=CODE_VERSION, **sides)

    @property
    def row_fingerprint(self) -> Fingerprint:
        """The fingerprint of this row. It has more facts than later stages need; organ and tech matter only from prediction
        on.
        """
        return self.fingerprint.extend(
            "registration",
            CODE_VERSION,
            organ=self.organ,
            tech=self.tech,
            status=self.status,
            spots=self.spots_uri,
            regions=self.regions_uri,
            features=self.features_uri,
        )

    def open(self) -> Slide:
        """Open the scan at the registered scale."""
        return open_slide(self.uri, self.given_mpp)

    def is_gone(self, at_urls: bool = False) -> bool:
        """Return whether the registered path has no file. Servers of URLs are asked only if `at_urls` says so."""
        source = Source(self.uri)
        if not source.is_remote:
            return not source.path.exists()
        try:
            if at_urls:
                source.check()
        except SlideError as e:  # a server that does not answer is no proof
            return isinstance(e.__cause__, FileNotFoundError)
        return False

    def trouble(self, at_urls: bool = False) -> str | None:
        """Return what is wrong with the scan's file (missing, or another size), or None. Its content is not read.

        Scans at URLs are looked at only if `at_urls` says so, because that asks a server.
        """
        path = self.uri
        if is_url(path):
            source = Source(path)
            if source.is_remote:
                return _trouble_at_url(source, self.size_bytes) if at_urls else None
            path = str(source.path)
        try:
            stat = os.stat(path)
        except OSError as e:
            return f"gone: {path} ({e.strerror}); put it back, or add it where it is now"
        if stat.st_mtime_ns == self.modified_ns or path.lower().endswith(_SEVERAL_FILES):
            return None
        if stat.st_size != self.size_bytes:
            return f"replaced: {path} has {stat.st_size} bytes, {self.size_bytes} when it was registered"
        return None


def _trouble_at_url(source: Source, size_bytes: int) -> str | None:
    try:
        source.check()
    except SlideError as e:
        return f"{'gone' if isinstance(e.__cause__, FileNotFoundError) else 'not looked at'}: {e}"
    size = source.size_bytes()
    if size not in (None, size_bytes):
        return f"replaced: {source.uri} has {size} bytes, {size_bytes} when it was registered"
    return None


def name_without_suffix(name: str) -> str:
    """Return a file's name without the ending of its format."""
    return _SUFFIXES.sub("", name)


def slide_id_from_name(name: str) -> str:
    """Make a slide_id from a file name: its stem with other characters than plain letters, digits and `_.-` as '_', up to 120
    long.

    Deterministic. A stem that is a valid slide_id stays as it is.
    """
    stem = name_without_suffix(name)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain)
    plain = re.sub(r"\.{2,}", ".", plain).lstrip("_.-")[:MAX_ID]
    return plain if SLIDE_ID.fullmatch(plain) else "slide"
