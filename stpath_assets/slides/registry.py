"""The slides that a data root knows: registering, refreshing and retiring them.

Each slide is one row in a part of its own. A slide_id is made by one function from the file's name; two
different scans that want the same one are told apart by the start of their content's hash.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from stpath_assets import fingerprint
from stpath_assets.errors import SlideError
from stpath_assets.fingerprint import Fingerprint
from stpath_assets.slides import tokens
from stpath_assets.slides.scale import Mpp
from stpath_assets.slides.slide import Slide, open_slide
from stpath_assets.slides.source import Source, is_url
from stpath_assets.storage import SLIDE_ID, Store
from stpath_assets.tables import SLIDES

CODE_VERSION = "2"
_SUFFIXES = re.compile(
    r"(\.ome)?\.(svs|tiff?|ndpi|scn|mrxs|vms|vmu|bif|qptiff|btf|tf8|svslide|czi|dcm|png|jpe?g)$", re.IGNORECASE
)
_MAX_ID = 120

NONE = "none"
"""In place of a file's path: a slide has none, or no longer. A file of that name is written ./none."""


@dataclass(frozen=True)
class Registered:
    """A row of `slides`; units and meanings are in `tables.SLIDES`."""

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
    # Absent in what earlier versions stored.
    objective_power: float | None = None
    backend: str = "tiffslide"
    regions_uri: str | None = None
    features_uri: str | None = None
    mpp_x: float | None = None
    mpp_y: float | None = None

    @property
    def mpp_xy(self) -> Mpp:
        """The scale used, along x and y."""
        return (self.mpp, self.mpp) if self.mpp_x is None or self.mpp_y is None else (self.mpp_x, self.mpp_y)

    @property
    def fingerprint(self) -> Fingerprint:
        """What every later stage of this slide starts from: its content and its scale."""
        x, y = self.mpp_xy
        sides = {} if x == y else {"slide_mpp_x": x, "slide_mpp_y": y}
        return fingerprint.start(slide_sha256=self.sha256, slide_mpp=self.mpp, slides_code=CODE_VERSION, **sides)

    @property
    def row_fingerprint(self) -> Fingerprint:
        """What this row was made from: more than later stages need, since organ and tech matter from
        prediction on.
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
        """Opens the scan at the registered scale."""
        return open_slide(self.uri, self.mpp_xy if self.mpp_source == "user" else None)


def slide_id_from_name(name: str) -> str:
    """A slide_id from a file name: its stem in plain letters, other characters as '_', at most 120 long.

    Deterministic, and the identity on stems that already are slide_ids.
    """
    stem = _SUFFIXES.sub("", name)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain)
    plain = re.sub(r"\.{2,}", ".", plain).lstrip("_.-")[:_MAX_ID]
    return plain if SLIDE_ID.fullmatch(plain) else "slide"


class Registry:
    """The `slides` table of a data root."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(
        self,
        path: str | Path,
        *,
        organ: str | None = None,
        tech: str | None = None,
        mpp: float | Mpp | None = None,
        spots: str | Path | None = None,
        regions: str | Path | None = None,
        features: str | Path | None = None,
        slide_id: str | None = None,
        check: Callable[[Registered], object] = lambda _: None,
    ) -> Registered:
        """Registers a scan with what is known of it, or updates what is known of one that is registered already.

        What is not given of one that is registered stays as it was; `none` for spots, regions or features takes them away.
        `check` looks at the row before it is stored, and raises where something is wrong with it.

        Organ and tech are stored under the model's own names. Raises `SlideError`, `ScaleError` or
        `VocabularyError`; nothing is registered then.
        """
        source = Source(path if is_url(path) else Path(path).expanduser().absolute())
        organ, tech = tokens.organ(organ), tokens.tech(tech)
        before = next((r for r in self.all() if r.uri == source.uri and slide_id in (None, r.slide_id)), None)
        if before is not None:
            organ, tech = organ or before.organ, tech or before.tech
            spots = spots or before.spots_uri
            regions, features = regions or before.regions_uri, features or before.features_uri
            mpp = before.mpp_xy if mpp is None and before.mpp_source == "user" else mpp
        if slide_id is not None and not SLIDE_ID.fullmatch(slide_id):
            raise SlideError(
                f"--id {slide_id!r}: use letters, digits, '_', '.', '-', at most {_MAX_ID}, first a letter or digit, no '..'"
            )
        spots_uri = _existing(source.name, "measured expression", "--spots", spots)
        regions_uri = _existing(source.name, "regions", "--regions", regions)
        features_uri = _existing(source.name, "features", "--features", features)
        with open_slide(path if source.is_remote else source.path, mpp) as slide:
            sha256, size_bytes = slide.content()
            with self._lock():
                id_ = self._id_for(source, sha256, slide_id)
                row = Registered(
                    id_, source.uri, sha256, size_bytes, slide.width_px, slide.height_px, slide.mpp, slide.mpp_source,
                    slide.mpp_file, slide.vendor, len(slide.level_dimensions), organ, tech, spots_uri, "ready", None,
                    tuple(slide.warnings), self._registered_at(id_), slide.objective_power, slide.backend,
                    regions_uri, features_uri, *slide.mpp_xy,
                )  # fmt: skip
                check(row)
                self._write(row)
        return row

    def refresh(self, slide_id: str) -> Registered:
        """Reads a registered scan again, keeps what the user said of it, and stores what changed.

        Raises `SlideError` where the scan is gone or broken now.
        """
        with self.get(slide_id).open() as slide:
            sha256, size_bytes = slide.content()
            found: dict[str, Any] = {
                "sha256": sha256,
                "size_bytes": size_bytes,
                "width_px": slide.width_px,
                "height_px": slide.height_px,
                "mpp": slide.mpp,
                "mpp_x": slide.mpp_xy[0],
                "mpp_y": slide.mpp_xy[1],
                "mpp_file": slide.mpp_file,
                "vendor": slide.vendor,
                "levels": len(slide.level_dimensions),
                "warnings": tuple(slide.warnings),
                "objective_power": slide.objective_power,
                "backend": slide.backend,
            }
        with self._lock():
            # Read again: it may have been retired while the scan was hashed.
            old = self.get(slide_id)
            row = replace(old, **found)
            if row != old:
                self._write(row)
        return row

    def retire(self, slide_id: str, reason: str | None = None) -> Registered:
        """Takes a slide out of the catalog and of all later runs; its file and its tables stay."""
        with self._lock():
            row = replace(self.get(slide_id), status="retired", reason=reason)
            self._write(row)
        return row

    def get(self, slide_id: str) -> Registered:
        """A slide's row; raises `SlideError` naming what is registered where there is none."""
        known = self.store.slide_ids(SLIDES.name)
        if slide_id not in known:
            some = ", ".join(known[:10]) + (", …" if len(known) > 10 else "") if known else "none yet"
            raise SlideError(f"{slide_id}: no such slide here; registered: {some}. Add one: stpath-assets add SLIDE")
        values: dict[str, Any] = self.store.read(SLIDES.name, slide_id).to_pylist()[0]
        return Registered(**{**values, "warnings": tuple(values["warnings"])})

    def all(self) -> list[Registered]:
        """Every registered slide, by slide_id, the retired ones included."""
        return [self.get(s) for s in self.store.slide_ids(SLIDES.name)]

    def live(self) -> list[Registered]:
        """The slides that runs and the catalog work on."""
        return [s for s in self.all() if s.status == "ready"]

    def _id_for(self, source: Source, sha256: str, wanted: str | None) -> str:
        rows = {r.slide_id: r for r in self.all()}
        # A scan keeps its id, however it came by it.
        wanted = wanted or next((r.slide_id for r in rows.values() if r.uri == source.uri), None)
        id_ = wanted or slide_id_from_name(source.name)
        same = [r.slide_id for r in rows.values() if r.sha256 == sha256 and r.uri != source.uri and r.status == "ready"]
        if wanted is None and same:
            raise SlideError(
                f"{source.name}: has the same content as slide {same[0]} ({rows[same[0]].uri}); "
                "to register it twice all the same, give it a name with --id"
            )
        if id_ not in rows or rows[id_].sha256 == sha256 or rows[id_].uri == source.uri:
            return id_
        if wanted is not None:
            raise SlideError(f"--id {id_}: is another scan's already ({rows[id_].uri}); choose another")
        return f"{id_[: _MAX_ID - 9]}-{sha256[:8]}"

    def _registered_at(self, slide_id: str) -> datetime:
        if slide_id in self.store.slide_ids(SLIDES.name):
            return self.get(slide_id).registered_at
        return datetime.now(UTC)

    def _write(self, row: Registered) -> None:
        values = {**row.__dict__, "warnings": list(row.warnings)}
        self.store.write(SLIDES.name, row.slide_id, pa.Table.from_pylist([values], SLIDES.schema), row.row_fingerprint)

    def _lock(self) -> FileLock:
        folder = self.store.home / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".registry.lock", timeout=60)


def _existing(slide: str, what: str, option: str, path: str | Path | None) -> str | None:
    """A path that belongs to a slide, absolute; None for none. Raises `SlideError` where nothing is there."""
    if path is None or str(path) == NONE:
        return None
    absolute = Path(path).expanduser().absolute()
    if not absolute.exists():
        raise SlideError(f"{slide}: its {what} {absolute} does not exist; check {option}")
    return str(absolute)
