"""The states of every slide's stages: stored parts compared with what would be stored now.

`status`, `doctor`, the catalog asset and the view `stale_slides` show these states.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stpath_assets.errors import StpathError, one_line
from stpath_assets.slides import Registered, Registry
from stpath_assets.stages.plan import STAGES, Plan
from stpath_assets.stages.working import read_failures
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.part import Part
from stpath_assets.tables import SLIDES


@dataclass(frozen=True)
class State:
    """The state of a slide's stage. `kind` is current, outdated, failed, missing, gone, replaced or nothing; `why` is one
    line.
    """

    kind: str
    why: str = ""
    differs: tuple[tuple[str, Any, Any], ...] = ()

    def __str__(self) -> str:
        if self.kind == "nothing":
            return "–"
        return f"{self.kind}: {self.why}" if self.why else self.kind


class Survey:
    """The states of all slides, from one snapshot of the lake."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store, self.plan = store, plan
        self.rows = Registry(store).all()
        self.parts = {(p.table, p.slide_id): p for p in store.parts()}
        self.failures = read_failures(store)
        self._facts: dict[str, dict[str, str]] = {}

    def state(self, stage: str, row: Registered) -> State:
        """Return the state of a slide's stage, and why."""
        if stage == SLIDES.name:
            kind, _, why = (row.trouble() or "current").partition(": ")
            return State(kind, why)
        try:
            expected = self.plan.expected(stage, row)
        except StpathError as e:
            return State("failed", one_line(str(e)))
        if expected is None:
            return State("nothing")
        part, failure = self.parts.get((stage, row.slide_id)), self.failures.get((stage, row.slide_id))
        if part is not None and part.digest == expected.digest:
            return State("current") if self.store.is_whole(part) else State("failed", _broken(part))
        if failure is not None and failure.made_from == expected.digest:
            return State("failed", failure.reason)
        if part is None:
            return State("missing")
        differs = differences(self._stored(stage, row.slide_id), expected)
        return State("outdated", describe_differences(differs), differs)

    def _stored(self, stage: str, slide_id: str) -> Fingerprint:
        """Return what a part was made from. The facts of a whole table are read at the first call."""
        if stage not in self._facts:
            self._facts[stage] = self.store.facts(stage)
        return Fingerprint(json.loads(self._facts[stage].get(slide_id, "{}")))


def _broken(part: Part) -> str:
    return part.damaged or "its file is gone or cut off; the next run makes it again"


def states_of(store: Store, plan: Plan) -> Iterator[tuple[Registered, dict[str, State]]]:
    """Yield every registered slide with the state of each stage. Stages of retired slides are not checked."""
    survey = Survey(store, plan)
    for row in survey.rows:
        stages = STAGES if row.status == "ready" else ()
        yield row, {stage: survey.state(stage, row) for stage in stages}


def stale_slides(store: Store, plan: Plan) -> pa.Table:
    """Return the view `stale_slides`: one row for each fact that differs between the stored part and a new one."""
    rows = [
        {
            "slide_id": row.slide_id,
            "stage": stage,
            "state": state.kind,
            "field": name,
            "stored": was,
            "expected": now,
            "why": why,
        }
        for row, states in states_of(store, plan)
        for stage, state in states.items()
        if state.kind not in ("current", "nothing")
        for name, was, now, why in _fields(state)
    ]
    names = ("slide_id", "stage", "state", "field", "stored", "expected", "why")
    return pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in names]))


def _fields(state: State) -> list[tuple[str | None, str | None, str | None, str]]:
    if not state.differs:
        return [(None, None, None, state.why)]
    return [(name, _json(was), _json(now), state.why) for name, was, now in state.differs]


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def differences(stored: Fingerprint, expected: Fingerprint) -> tuple[tuple[str, Any, Any], ...]:
    """Return the facts that differ: name, stored value, expected value; None if a value is missing."""
    names = sorted(stored.facts.keys() | expected.facts.keys())
    pairs = ((n, stored.facts.get(n), expected.facts.get(n)) for n in names)
    return tuple((n, was, now) for n, was, now in pairs if was != now)


def describe_differences(differs: tuple[tuple[str, Any, Any], ...], most: int = 3) -> str:
    """Format differences as one line: `organ Breast → Lung, tile_stride 1.0 → 0.5`."""
    said = [f"{name} {_short(was)} → {_short(now)}" for name, was, now in differs[:most]]
    more = [f"{len(differs) - most} more"] if len(differs) > most else []
    return ", ".join([*said, *more])


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) if len(value) <= 3 else f"{len(value)} values"
    if isinstance(value, dict):
        return _short(list(value))
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:8]}…"
    return "none" if value is None else str(value)
