"""Registers what arrived in the inbox. What cannot be registered is put into `quarantine`, with the reason."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from stpath_assets.errors import StpathError, explain, failure_of_machine
from stpath_assets.ingestion.adding import arguments_of
from stpath_assets.ingestion.files import look_at
from stpath_assets.ingestion.inbox import Arrival
from stpath_assets.slides import Registered, Registry, slide_id_from_name
from stpath_assets.slides.source import Source
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME, Cursor
from stpath_assets.tables import QUARANTINE

TRIES = 3
"""How often the same file is tried if the process dies with it: it may have been killed for another reason."""

_TABLE = f"{NAME}.parts.{QUARANTINE.name}"


@dataclass(frozen=True)
class Quarantined:
    """A scan that cannot be registered; see `tables.QUARANTINE`."""

    uri: str
    slide_id: str
    arrival: str
    tries: int
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether it is not tried again as it is."""
        return bool(self.reason) or self.tries >= TRIES

    @property
    def why(self) -> str:
        """The reason, one line."""
        return (
            self.reason or f"{self.uri}: the process died {self.tries} times while it was read; copy or scan it again"
        )


def read_quarantine(store: Store) -> dict[str, Quarantined]:
    """Return the scans that cannot be registered, by path. A data root without a lake has none."""
    if not store.is_there():
        return {}
    query = f"select uri, slide_id, arrival, tries, reason from {_TABLE} order by uri"
    store.open()
    rows = store.lake.remember("quarantine", lambda cursor: cursor.execute(query).fetchall())
    return {row[0]: Quarantined(*row) for row in rows}


def forget_gone(store: Store) -> list[str]:
    """Take scans out of quarantine whose files are gone. Returns their paths."""
    gone = [uri for uri in read_quarantine(store) if _is_gone(uri)]
    for uri in gone:
        _forget(store, uri)
    return gone


def _is_gone(uri: str) -> bool:
    try:
        look_at(uri)
    except FileNotFoundError:
        return True
    except OSError:  # it may be there, and cannot be looked at now
        return False
    return False


def done_of(store: Store, arrivals: Iterable[Arrival]) -> dict[str, str]:
    """Return the digest with which each path was registered or refused. A scan that was added by hand counts as registered
    while its file is the same.
    """
    done = {q.uri: q.arrival for q in read_quarantine(store).values() if q.is_over}
    rows = {row.uri: row for row in Registry(store).all()}
    for arrival in arrivals:
        row = rows.get(arrival.entry.scan)
        if row is None:
            continue
        same_time = row.modified_ns in (None, arrival.seen.modified_ns)  # None: at a URL
        by_hand = row.arrival is None and row.size_bytes == arrival.seen.size_bytes and same_time
        if by_hand or row.status == "retired":
            done[row.uri] = arrival.digest
        elif row.arrival is not None:
            done.setdefault(row.uri, row.arrival)
            if row.arrival == arrival.digest:
                done[row.uri] = row.arrival
    return done


def register_arrivals(
    store: Store, arrivals: Iterable[Arrival], check: Callable[[Registered], object] = lambda _: None
) -> tuple[list[Registered], list[Quarantined]]:
    """Register scans one by one. Returns the rows, and what was put into quarantine."""
    store.create()
    rows, refused = list[Registered](), list[Quarantined]()
    for arrival in arrivals:
        known = arrival.entry.known
        id_ = known.slide_id or slide_id_from_name(Source(arrival.entry.scan).name)
        before = read_quarantine(store).get(arrival.entry.scan)
        tries = 1 + (before.tries if before is not None and before.arrival == arrival.digest else 0)
        tried = Quarantined(arrival.entry.scan, id_, arrival.digest, tries, "")
        _keep(store, tried)  # before it is read: if that kills the process, the next try knows
        try:
            if arrival.refused:
                raise StpathError(arrival.refused)
            row = Registry(store).add(arrival.entry.scan, **arguments_of(known), check=check, arrival=arrival.digest)
        except Exception as e:
            if failure_of_machine(e):  # the scan is not to blame: it is tried again
                with suppress(Exception):
                    _forget(store, tried.uri)
                raise
            said = str(e) if isinstance(e, StpathError) else f"{id_}: {explain(e)}"
            refused.append(Quarantined(tried.uri, id_, tried.arrival, tries, said))
            _keep(store, refused[-1])
        else:
            rows.append(row)
            _forget(store, tried.uri)
    return rows, refused


def _forget(store: Store, uri: str) -> None:
    store.lake.transact(lambda cursor: cursor.execute(f"delete from {_TABLE} where uri = ?", [uri]))


def _keep(store: Store, scan: Quarantined) -> None:
    def work(cursor: Cursor) -> None:
        cursor.execute(f"delete from {_TABLE} where uri = ?", [scan.uri])
        values = [scan.uri, scan.slide_id, scan.arrival, scan.tries, scan.reason, datetime.now(UTC)]
        cursor.execute(f"insert into {_TABLE} values (?, ?, ?, ?, ?, ?)", values)

    store.lake.transact(work)
