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


MAX_TRIES = 3
"""How often a run of the same slide is asked for if it ends without a result or a reason: killed, most likely."""


@dataclass(frozen=True)
class Memory:
    """What a tick remembers for the next.

    `seen` are files that are not dealt with, by path; `waiting_since` says since when slides wait for a run; `asked` has, by
    slide, what its run would make, and how often such a run was asked for.
    """

    seen: Mapping[str, str] = field(default_factory=dict)
    waiting_since: float | None = None
    asked: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: str | None) -> "Memory":
        """Read a sensor's cursor. One that is empty or of another version is an empty memory: it costs a tick, no more."""
        try:
            said = json.loads(cursor or "{}")
            asked = {str(k): (str(what), int(often)) for k, (what, often) in said["asked"].items()}
            return cls({str(k): str(v) for k, v in said["seen"].items()}, said["waiting_since"], asked)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def dump(self) -> str:
        """Return the memory as a cursor."""
        return json.dumps({"seen": dict(self.seen), "waiting_since": self.waiting_since, "asked": dict(self.asked)})


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


@dataclass(frozen=True)
class Turns:
    """What becomes of slides that wait: those that share runs, those whose run was asked for before without success and that now
    get one of their own, and those that have had enough.
    """

    together: list[str]
    alone: list[str]
    given_up: list[str]


def choose_turns(wanted: Mapping[str, str], memory: Memory, tries: int = MAX_TRIES) -> Turns:
    """Return whose turn it is. `wanted` has, by slide, what its run would make: as long as that stays the same, it was not made.

    A run may die with one of its slides, for example of too little memory. Alone, that slide takes no other with it.
    """
    often = {
        slide: memory.asked[slide][1] for slide, what in wanted.items() if memory.asked.get(slide, ("", 0))[0] == what
    }
    return Turns(
        [slide for slide in wanted if slide not in often],
        [slide for slide in wanted if 0 < often.get(slide, 0) < tries],
        [slide for slide in wanted if often.get(slide, 0) >= tries],
    )


def note_asked(wanted: Mapping[str, str], asked: Iterable[str], memory: Memory) -> Memory:
    """Return the memory after runs of some slides were asked for. Slides that want nothing any more are forgotten."""
    kept = {slide: said for slide, said in memory.asked.items() if wanted.get(slide) == said[0]}
    for slide in asked:
        kept[slide] = (wanted[slide], kept.get(slide, ("", 0))[1] + 1)
    return replace(memory, asked=kept)
