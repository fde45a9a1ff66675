"""The register of a data root's slides: adding, refreshing and retiring them.

Each slide is one row of the lake's table `slides`. A slide_id is made from the file's name. If two different scans want the same
id, the second gets the start of its content's hash. What a row holds is in `registered`.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from stpath_assets.errors import SameContentError, SlideError
from stpath_assets.slides.facts import read_facts
from stpath_assets.slides.registered import MAX_ID, Registered, slide_id_from_name
from stpath_assets.slides.scale import Mpp
from stpath_assets.slides.source import Source, is_url
from stpath_assets.storage import SLIDE_ID, Store
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.storage.locks import lock
from stpath_assets.storage.part import OF_SLIDE
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import SLIDES
from stpath_assets.vocabulary import tokens

_TABLE = f"{NAME}.parts.{SLIDES.name}"
_WAIT_S = 60.0

NONE = "none"
"""Given instead of a path, organ or technology: the slide has none. For a file of that name, give ./none."""

FROM_FILE = "file"
"""Given instead of a scale: use the file's scale, whatever the user gave before."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Registry:
    """The table `slides` of a data root."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(
        self,
        path: str | Path,
        *,
        organ: str | None = None,
        tech: str | None = None,
        mpp: float | Mpp | str | None = None,
        mpp_source: str = "user",
        spots: str | Path | None = None,
        regions: str | Path | None = None,
        features: str | Path | None = None,
        patient: str | None = None,
        cohort: str | None = None,
        genes: str | None = None,
        more: dict[str, str] | None = None,
        arrival: str | None = None,
        slide_id: str | None = None,
        check: Callable[[Registered], object] = lambda _: None,
    ) -> Registered:
        """Register a scan, or update one that is registered already.

        Values that are not given keep their earlier value. `none` removes one; for mpp, `file` does. A scan whose registered
        path is gone is recognized by its content, and keeps all its values. `genes` is the panel of the slide's runs, as
        `--genes`. `more` holds further facts by name, and replaces the earlier ones. `arrival` is what the inbox saw.
        `mpp_source` says where a given `mpp` comes from.
        `check` is called with the row before it is stored, and raises if something is wrong.

        Organ and tech are stored under the model's own names. Raises `SlideError`, `ScaleError` or `VocabularyError`; nothing is
        registered then.
        """
        source = Source(path if is_url(path) else Path(path).expanduser().absolute())
        tokens_given = {k: None if v == NONE else f(v) for k, v, f in
                        (("organ", organ, tokens.organ), ("tech", tech, tokens.tech)) if v is not None}  # fmt: skip
        if slide_id is not None and not SLIDE_ID.fullmatch(slide_id):
            raise SlideError(
                f"--id {slide_id!r}: use letters, digits, '_', '.', '-', at most {MAX_ID}, first a letter or digit, no '..'"
            )
        files = {
            f"{name}_uri": _existing(source.name, what, f"--{name}", value)
            for name, what, value in (
                ("spots", "measured expression", spots), ("regions", "regions", regions), ("features", "features", features),
            ) if value is not None
        }  # fmt: skip
        self.store.create()
        found = _look(source, mpp, self._guess(source, slide_id))
        if mpp not in (None, FROM_FILE):
            found["mpp_source"] = mpp_source
        with self._lock():
            before, id_ = self._same(source, str(found["sha256"]), slide_id)
            known = _kept(before) | found | tokens_given | files
            known |= {
                column: None if value == NONE else value
                for column, value in (
                    ("patient_id", patient),
                    ("cohort", cohort),
                    ("asked_genes", genes),
                    ("arrival", arrival),
                )
                if value is not None
            }
            if more is not None:
                known["more"] = json.dumps(more, ensure_ascii=False, sort_keys=True)
            row = Registered(**known | {"slide_id": id_, "uri": source.uri, "status": "ready", "reason": None})
            check(row)
            self._write(row, is_new=before is None)
        return row

    def refresh(self, slide_id: str) -> Registered:
        """Read a registered scan again, keep the user's values, and store what changed.

        Raises `SlideError` if the scan is missing or broken, or if another scan is at its path.
        """
        before = self.get(slide_id)
        source = Source(before.uri)
        found = read_facts(source, before.given_mpp) | {"mpp_source": before.mpp_source}
        _require_same(source, before, str(found["sha256"]))
        with self._lock():
            # Read again, because it may have been retired while the scan was hashed.
            old = self.get(slide_id)
            row = replace(old, **found)
            if row != old:
                self._write(row)
        return row

    def retire(self, slide_id: str, reason: str | None = None) -> Registered:
        """Take a slide out of the catalog and of later runs. Its file and its tables stay."""
        with self._lock():
            row = replace(self.get(slide_id), status="retired", reason=reason)
            self._write(row)
        return row

    def keep_regions(self, slide_id: str, regions: Path | None) -> Registered:
        """Store which file has a slide's regions, or that it has none, and return its row. The scan is not read."""
        with self._lock():
            row = replace(self.get(slide_id), regions_uri=None if regions is None else str(regions.absolute()))
            self._write(row)
        return row

    def keep_asked(self, row: Registered, asked: dict[str, str]) -> Registered:
        """Store the encoder, genes, models and context that a run was asked for, and return the slide's row. Later runs use
        them unless told otherwise.
        """
        values: dict[str, Any] = {f"asked_{k}": v for k, v in asked.items()}
        if replace(row, **values) != row:
            with self._lock():
                row = replace(self.get(row.slide_id), **values)
                self._write(row)
        return row

    def get(self, slide_id: str) -> Registered:
        """Return a slide's row. Raises `SlideError`, with the registered ids, if there is none."""
        self.store.open()
        kept: list[Registered] | None = self.store.lake.recall("slides")
        found = self._rows(f"where {OF_SLIDE}", slide_id) if kept is None else kept
        row = next((r for r in found if r.slide_id == slide_id), None)
        if row is not None:
            return row
        known = self.store.slide_ids(SLIDES.name)
        some = ", ".join(known[:10]) + (", …" if len(known) > 10 else "") if known else "none yet"
        raise SlideError(f"{slide_id}: no such slide here; registered: {some}. Add one: stpath-assets add SLIDE")

    def all(self) -> list[Registered]:
        """Return every registered slide, including retired ones, by slide_id."""
        self.store.open()
        return list(self.store.lake.remember("slides", lambda cursor: _rows(cursor, "")))

    def live(self) -> list[Registered]:
        """Return the slides that runs and the catalog use."""
        return [row for row in self.all() if row.status == "ready"]

    def choose(self, slide_ids: Sequence[str] = ()) -> list[Registered]:
        """Return the live slides with these ids, without repeats, or all of them. Raises `SlideError` if one is retired, or
        if there are none.
        """
        if not slide_ids:
            live = self.live()
            if not live:
                raise SlideError(f"no slide is registered in {self.store.home}; add one: stpath-assets add SLIDE")
            return live
        rows = [self.get(slide_id) for slide_id in dict.fromkeys(slide_ids)]
        for row in rows:
            if row.status != "ready":
                raise SlideError(f"{row.slide_id}: is {row.status}; add it again to bring it back")
        return rows

    def _rows(self, where: str, *values: Any) -> list[Registered]:
        self.store.open()
        return self.store.lake.read(lambda cursor: _rows(cursor, where, *values))

    def _guess(self, source: Source, wanted: str | None) -> Registered | None:
        """Guess, before reading its content, which registered slide a scan is: by its path, or by its size if the registered file
        is gone. The guess gives the scale of a scan whose file has none.
        """
        size = None if source.is_remote else _size_of(source.path)
        rows = self._rows("where uri = ? or size_bytes = ?", source.uri, size)
        mine = [r for r in rows if wanted in (None, r.slide_id)]
        by_path = next((r for r in mine if r.uri == source.uri), None)
        return by_path or next((r for r in mine if r.is_gone()), None)

    def _same(self, source: Source, sha256: str, wanted: str | None) -> tuple[Registered | None, str]:
        """Return the registered slide with the scan's content, if any, and its slide_id, or a new one.

        Raises `SlideError` if the path, the content or the wanted id belongs to another slide.
        """
        id_ = wanted or slide_id_from_name(source.name)
        rows = self._rows("where uri = ? or sha256 = ? or slide_id = ?", source.uri, sha256, id_)
        for row in rows:
            if row.uri != source.uri or wanted not in (None, row.slide_id):
                continue
            if row.sha256 == sha256:
                return row, row.slide_id
            if row.status == "ready":
                _require_same(source, row, sha256)
        same = [r for r in rows if r.sha256 == sha256 and r.uri != source.uri]
        moved = next((r for r in same if (r.is_gone(at_urls=True) if wanted is None else r.slide_id == wanted)), None)
        if moved is not None:
            return moved, moved.slide_id
        twice = next((r for r in same if r.status == "ready"), None)
        if wanted is None and twice is not None:
            raise SameContentError(
                f"{source.name}: has the same content as slide {twice.slide_id} ({twice.uri}); "
                "to register it twice, give it an id with --id"
            )
        taken = next((r for r in rows if r.slide_id == id_), None)
        if taken is None:
            return None, id_
        if wanted is not None:
            raise SlideError(f"--id {id_}: belongs to another scan ({taken.uri}); choose another")
        return None, f"{id_[: MAX_ID - 9]}-{sha256[:8]}"

    def _write(self, row: Registered, *, is_new: bool = False) -> None:
        values = {**row.__dict__, "warnings": list(row.warnings)}
        rows = pa.Table.from_pylist([values], SLIDES.schema)
        may_be_there = not is_new

        def work(cursor: Cursor) -> None:
            nonlocal may_be_there
            if may_be_there:
                cursor.execute(f"delete from {_TABLE} where {OF_SLIDE}", [row.slide_id])
            may_be_there = True  # a commit whose answer was lost is tried again
            insert_rows(cursor, SLIDES, rows)

        self.store.lake.transact(work)

    def _lock(self) -> AbstractContextManager[None]:
        return lock(self.store.home / "locks" / "register.lock", _WAIT_S, "the register of slides")


def _rows(cursor: Cursor, where: str, *values: Any) -> list[Registered]:
    # The time as a number: for times, DuckDB needs pytz and Arrow pandas, which are slow to import.
    table = cursor.execute(
        f"select * replace (epoch_us(registered_at) as registered_at) from {_TABLE} {where} order by slide_id",
        list(values),
    ).to_arrow_table()
    names = [f.name for f in fields(Registered) if f.name in table.column_names]
    columns = {n: table[n].to_pylist() for n in names}
    columns["warnings"] = [tuple(w or ()) for w in columns["warnings"]]
    columns["registered_at"] = [_EPOCH + timedelta(microseconds=us) for us in columns["registered_at"]]
    return [Registered(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # opening it will report the error
        return None


def _look(source: Source, mpp: float | Mpp | str | None, guess: Registered | None) -> dict[str, Any]:
    """Read a scan's facts. If no scale is given, first try the one that a user gave for the same content."""
    if mpp is None and guess is not None and guess.given_mpp is not None:
        found = read_facts(source, guess.given_mpp) | {"mpp_source": guess.mpp_source}
        if found["sha256"] == guess.sha256:
            return found
        if guess.uri == source.uri and guess.status == "ready":
            _require_same(source, guess, str(found["sha256"]))
    return read_facts(source, None if isinstance(mpp, str) else mpp)


def _kept(before: Registered | None) -> dict[str, Any]:
    """Return the user's earlier values of a scan, or empty ones."""
    if before is not None:
        return dict(before.__dict__)
    return {"organ": None, "tech": None, "spots_uri": None, "registered_at": datetime.now(UTC)}


def _require_same(source: Source, row: Registered, sha256: str) -> None:
    if sha256 != row.sha256:
        raise SlideError(
            f"{row.slide_id}: {source.uri} is now another scan (SHA-256 {sha256[:12]}…) than the registered one "
            f"({row.sha256[:12]}…); put that one back, or retire {row.slide_id} and add this one under another --id"
        )


def _existing(slide: str, what: str, option: str, path: str | Path) -> str | None:
    """Return an absolute path, or None for none. Raises `SlideError` if nothing exists there."""
    if str(path) == NONE:
        return None
    if is_url(path):
        raise SlideError(f"{slide}: its {what} {path} is at a URL; copy it to this machine, and give {option} a path")
    absolute = Path(path).expanduser().absolute()
    if not absolute.exists():
        raise SlideError(f"{slide}: its {what} {absolute} does not exist; check {option}")
    return str(absolute)
