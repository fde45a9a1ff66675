"""Locks a slide during work on one of its stages, and records the failure if it fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stpath_assets.errors import SlideError, StpathError, one_line
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME
from stpath_assets.storage.locks import SLIDE_WAIT_S, lock
from stpath_assets.tables import FAILURES


@contextmanager
def working(
    store: Store,
    stage: str,
    slide_id: str,
    waiting: Callable[[str], None] = lambda _: None,
    made_from: Callable[[Registered], str | None] = lambda _: None,
) -> Iterator[Registered]:
    """Lock a slide while one of its stages is brought up to date, and yield its row.

    Another run of the slide waits; `waiting` is called with the lock's holder. An error of the stage is recorded as its
    failure, for `status`, with the fingerprint that `made_from` returns: it holds as long as that stays the same. Without
    one, the error is why there is no fingerprint, and it holds as long as there is none.
    """
    path = store.home / "locks" / "slides" / f"{slide_id}.lock"
    if not path.exists():
        Registry(store).get(slide_id)  # so that no lock is made for a slide that is not there
    with lock(path, SLIDE_WAIT_S, f"{slide_id}: the slide", lambda who: waiting(f"{slide_id}: waits for {who}")):
        row = Registry(store).get(slide_id)
        if row.status != "ready":
            raise SlideError(
                f"{slide_id}: is {row.status} ({row.reason or 'no reason given'}); add it again to bring it back"
            )
        try:
            yield row
        except Exception as e:
            said = str(e) if isinstance(e, StpathError) else f"{type(e).__name__}: {e}"
            keep_failure(store, stage, slide_id, one_line(said)[:1000], made_from(row))
            raise
        _forget_failure(store, stage, slide_id)


@dataclass(frozen=True)
class StageFailure:
    """Why a stage of a slide failed last, and the fingerprint that it was tried with, if that was known."""

    reason: str
    made_from: str | None


def read_failures(store: Store) -> dict[tuple[str, str], StageFailure]:
    """Return why stages of slides failed last, by stage and slide."""
    query = f"select stage, slide_id, reason, made_from from {NAME}.parts.{FAILURES.name}"
    store.open()
    found = store.lake.remember("failures", lambda cursor: cursor.execute(query).fetchall())
    return {(stage, slide_id): StageFailure(reason, made_from) for stage, slide_id, reason, made_from in found}


def keep_failure(store: Store, stage: str, slide_id: str, reason: str, made_from: str | None) -> None:
    """Record why a stage of a slide failed, with the fingerprint that it was tried with."""

    def work(cursor: Any) -> None:
        cursor.execute(f"delete from {NAME}.parts.{FAILURES.name} where stage = ? and slide_id = ?", [stage, slide_id])
        values = [slide_id, stage, reason, datetime.now(UTC), made_from]
        columns = "(slide_id, stage, reason, failed_at, made_from)"
        cursor.execute(f"insert into {NAME}.parts.{FAILURES.name} {columns} values (?, ?, ?, ?, ?)", values)

    try:
        store.lake.transact(work)
    except StpathError:
        return  # the failure itself is raised; a lake that cannot be written is most likely its cause


def _forget_failure(store: Store, stage: str, slide_id: str) -> None:
    if (stage, slide_id) in read_failures(store):
        where = "where stage = ? and slide_id = ?"
        store.lake.transact(lambda c: c.execute(f"delete from {NAME}.parts.{FAILURES.name} {where}", [stage, slide_id]))
