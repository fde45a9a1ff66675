"""What a tick of the sensor does, as pure functions of what it sees and remembers.

A file is taken when it is the same in two ticks in a row: a copy that goes on changes its size or time. Only equality
counts, never the clock, so files from machines with a wrong clock are no different.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stpath_assets.ingestion.inbox import Arrival

MAX_SEEN = 20_000
"""Most files that are remembered between ticks. More wait their turn."""


@dataclass(frozen=True)
class Memory:
    """What a tick remembers for the next: files that are not dealt with, by path, and since when slides wait for a run."""

    seen: Mapping[str, str] = field(default_factory=dict)
    waiting_since: float | None = None

    @classmethod
    def load(cls, cursor: str | None) -> "Memory":
        """Read a sensor's cursor. One that is empty or of another version is an empty memory: it costs a tick, no more."""
        try:
            said = json.loads(cursor or "{}")
            return cls({str(k): str(v) for k, v in said["seen"].items()}, said["waiting_since"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def dump(self) -> str:
        """Return the memory as a cursor."""
        return json.dumps({"seen": dict(self.seen), "waiting_since": self.waiting_since})


def choose_arrivals(
    arrivals: Iterable[Arrival], done: Mapping[str, str], memory: Memory, most: int
) -> tuple[list[Arrival], Memory]:
    """Return up to `most` files to register, and the memory for the next tick.

    `done` has the digest with which each path was registered or refused. A file that is chosen stays in the memory: until it is
    done, it is chosen again, so that a killed run forgets nothing.
    """
    left = [a for a in arrivals if done.get(a.entry.scan) != a.digest][:MAX_SEEN]
    settled = [a for a in left if memory.seen.get(a.entry.scan) == a.digest]
    return settled[:most], replace(memory, seen={a.entry.scan: a.digest for a in left})


def is_time(waiting: int, enough: int, wait_s: float, now: float, memory: Memory) -> tuple[bool, Memory]:
    """Return whether waiting slides get their runs now, and the memory for the next tick.

    They do if there are enough for a full run, or if the first has waited long enough.
    """
    if waiting == 0:
        return False, replace(memory, waiting_since=None)
    since = now if memory.waiting_since is None or memory.waiting_since > now else memory.waiting_since
    if waiting >= enough or now - since >= wait_s:
        return True, replace(memory, waiting_since=None)
    return False, replace(memory, waiting_since=since)
