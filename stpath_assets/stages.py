"""The graph of stages: parents, code version, and what a slide's part would be made from now.

    plan = Plan(settings)
    plan.expected("stpath_predictions", row)      the fingerprint that the part would have now
    states_of(store, plan)                        what every slide's every stage is, and why

Storing, `status`, `doctor`, Dagster and the view `stale_slides` all ask here. How a stage computes is its own folder's business;
each offers the function that extends its parent's fingerprint, and the same function is used when a part is stored.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from stpath_assets import hashes, spots, weights
from stpath_assets.errors import SlideError, SpotsError, StpathError
from stpath_assets.evaluation import metrics_from, score, spots_from
from stpath_assets.features import embedder_of, encoders
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.prediction import predict
from stpath_assets.prediction.predict import ModelChoice
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry, registry
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME
from stpath_assets.storage.locks import SLIDE_WAIT_S, lock
from stpath_assets.storage.part import Part
from stpath_assets.tables import (
    EVALUATION_METRICS,
    FAILURES,
    GIGAPATH_FEATURES,
    GIGAPATH_THROUGHPUT,
    SLIDES,
    SPOT_EXPRESSION,
    STPATH_PREDICTIONS,
    TILE_GRIDS,
)
from stpath_assets.tiles import TileParameters
from stpath_assets.tiles.reader import CODE_VERSION as PIXELS_CODE_VERSION
from stpath_assets.tiles.survey import CODE as TILES_CODE
from stpath_assets.tiles.survey import digest_of

Expected = Callable[["Plan", Registered], "Fingerprint | None"]


@dataclass(frozen=True)
class Stage:
    """A stage, which has the name of its asset and first table.

    `expected` gives the fingerprint that a slide's part would have now, or None where there is nothing to do; it raises
    `StpathError` where that cannot be told, such as without weights.
    """

    name: str
    parents: tuple[str, ...]
    code_version: str
    expected: Expected
    also: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it writes, in one transaction."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class State:
    """How a slide's stage stands: `kind` is current, outdated, failed, missing, gone, replaced or nothing; `why` is one line."""

    kind: str
    why: str = ""
    differs: tuple[tuple[str, Any, Any], ...] = ()

    def __str__(self) -> str:
        if self.kind == "nothing":
            return "–"
        return f"{self.kind}: {self.why}" if self.why else self.kind


class Plan:
    """What slides would be made from now, under some settings. Fetches nothing from the network: weights that are not on
    this machine are an error. Made anew for each command or run, it asks each file once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._encoders: dict[str, dict[str, str] | StpathError] = {}
        self._models: dict[tuple[str, str], tuple[dict[str, str], list[str] | None] | StpathError] = {}
        self._row: Registered | None = None
        self._done: dict[str, Fingerprint | StpathError | None] = {}
        self._settings: dict[tuple[str | None, str | None], Settings] = {}
        self._tiles: dict[tuple[str | None, str | None], TileParameters] = {}

    def expected(self, stage: str, row: Registered) -> Fingerprint | None:
        """The fingerprint that a slide's part of a stage would have now; None where there is nothing to do.

        Raises `StpathError` where that cannot be told.
        """
        if row is not self._row:  # a stage asks for its parents; no other slide's are needed again
            self._row, self._done = row, {}
        if stage not in self._done:
            self._done[stage] = _outcome(lambda: STAGES[stage].expected(self, row))
        return _raised(self._done[stage])

    def require(self, stage: str, row: Registered) -> Fingerprint:
        """As `expected`, of a stage that every slide has."""
        found = self.expected(stage, row)
        assert found is not None
        return found

    def settings_of(self, row: Registered) -> Settings:
        """The settings that hold for a slide."""
        key = (row.asked_encoder, row.asked_genes)
        if key not in self._settings:
            self._settings[key] = self.settings.for_slide(*key)
        return self._settings[key]

    def tiles_of(self, row: Registered) -> TileParameters:
        """What the grid of a slide would depend on beside the scan."""
        key = (row.asked_encoder, row.asked_genes)
        if key not in self._tiles:
            self._tiles[key] = TileParameters.of(self.settings_of(row))
        return self._tiles[key]

    def encoder_facts(self, row: Registered) -> dict[str, str]:
        """What features of a slide's tiles would depend on beside the pixels."""
        settings = self.settings_of(row)
        if settings.encoder not in self._encoders:
            self._encoders[settings.encoder] = _outcome(lambda: self._facts(settings))
        return _raised(self._encoders[settings.encoder])

    def model(self, row: Registered) -> tuple[dict[str, str], list[str] | None]:
        """What a slide's predictions would depend on of the model, and the panel, None for all genes."""
        settings = self.settings_of(row)
        key = (settings.encoder, settings.genes)
        if key not in self._models:
            self._models[key] = _outcome(lambda: _model(settings))
        return _raised(self._models[key])

    def _facts(self, settings: Settings) -> dict[str, str]:
        choice = EncoderChoice.of(settings.encoder, settings)
        if settings.encoder_url is not None:
            return embedder_of(settings, choice).facts()
        if settings.encoder == "gigapath":
            choice = replace(choice, path=weights.present(choice.path, weights.GIGAPATH))
        return choice.facts()


def _model(settings: Settings) -> tuple[dict[str, str], list[str] | None]:
    choice = ModelChoice.for_encoder(settings.encoder, settings)
    choice = replace(choice, weights=weights.present(choice.weights, weights.STPATH))
    return choice.facts(), choice.panel(settings.genes)


def _outcome(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except StpathError as e:
        return e


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, StpathError):
        raise outcome
    return outcome


@dataclass(frozen=True)
class _Given:
    """What a grid's fingerprint needs of tiles that came with their features."""

    sha256: str
    tile_px: int
    mpp: float


def _slides(plan: Plan, row: Registered) -> Fingerprint:
    return row.row_fingerprint


def _tile_grids(plan: Plan, row: Registered) -> Fingerprint:
    settings = plan.settings_of(row)
    regions = None if row.regions_uri is None else hashes.sha256_of(Path(row.regions_uri))
    given = None if row.features_uri is None else _Given(**_imported(row)["tiles"])
    spots_digest = None
    if given is None and settings.grid == "spots":
        if row.spots_uri is None:
            raise SpotsError(f"{row.slide_id}: has no measured spots; add it with --spots, or set grid to regular")
        path = Path(row.spots_uri)
        key = f"spots {spots.CODE_VERSION} {spots.spots_fingerprint(path)}"
        spots_digest = hashes.derived(path, key, lambda: digest_of(spots.read_spots(path)))
    return plan.tiles_of(row).extend(row.fingerprint, regions, spots_digest, given)


def _features(plan: Plan, row: Registered) -> Fingerprint:
    tiles = plan.require(TILE_GRIDS.name, row)
    facts = plan.encoder_facts(row) if row.features_uri is None else _imported(row)["facts"]
    return encoders.extend(tiles, facts)


def _predictions(plan: Plan, row: Registered) -> Fingerprint:
    facts, panel = plan.model(row)
    return predict.extend(plan.require(GIGAPATH_FEATURES.name, row), row, panel, facts)


def _spots(plan: Plan, row: Registered) -> Fingerprint | None:
    return None if row.spots_uri is None else spots_from(row)


def _metrics(plan: Plan, row: Registered) -> Fingerprint | None:
    measured = plan.expected(SPOT_EXPRESSION.name, row)
    return None if measured is None else metrics_from(plan.require(STPATH_PREDICTIONS.name, row), measured)


def _imported(row: Registered) -> dict[str, Any]:
    """What tiles and features of a slide's file of features are made from; the file is read once for each state of it."""
    from stpath_assets.features import trident

    path = Path(str(row.features_uri))

    def compute() -> str:
        found = trident.read(path, row)
        tiles = {"sha256": found.tiles.sha256, "tile_px": found.tiles.tile_px, "mpp": found.tiles.mpp}
        return json.dumps({"tiles": tiles, "facts": found.facts})

    key = f"features {encoders.CODE_VERSION} {row.fingerprint.digest} {row.width_px} {row.height_px}"
    return dict(json.loads(hashes.derived(path, key, compute)))


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage(SLIDES.name, (), registry.CODE_VERSION, _slides),
        Stage(TILE_GRIDS.name, (SLIDES.name,), TILES_CODE, _tile_grids),
        Stage(
            GIGAPATH_FEATURES.name, (TILE_GRIDS.name,), f"{PIXELS_CODE_VERSION}.{encoders.CODE_VERSION}", _features,
            (GIGAPATH_THROUGHPUT.name,),
        ),
        Stage(STPATH_PREDICTIONS.name, (GIGAPATH_FEATURES.name,), predict.CODE_VERSION, _predictions),
        Stage(SPOT_EXPRESSION.name, (SLIDES.name,), spots.CODE_VERSION, _spots),
        Stage(
            EVALUATION_METRICS.name, (STPATH_PREDICTIONS.name, SPOT_EXPRESSION.name, TILE_GRIDS.name), score.CODE_VERSION,
            _metrics,
        ),
    )
}  # fmt: skip
"""The stages in the order of the data's way."""


class Survey:
    """How all slides stand, from one look at the lake."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store, self.plan = store, plan
        self.rows = Registry(store).all()
        self.parts = {(p.table, p.slide_id): p for p in store.parts()}
        self.failures = _failures(store)
        self._facts: dict[str, dict[str, str]] = {}

    def state(self, stage: str, row: Registered) -> State:
        """How a slide's stage stands, and why."""
        if stage == SLIDES.name:
            kind, _, why = (row.trouble() or "current").partition(": ")
            return State(kind, why)
        try:
            expected = self.plan.expected(stage, row)
        except StpathError as e:
            return State("failed", " ".join(str(e).split()))
        if expected is None:
            return State("nothing")
        part, failure = self.parts.get((stage, row.slide_id)), self.failures.get((stage, row.slide_id))
        if part is not None and part.digest == expected.digest:
            return State("current") if self.store.is_whole(part) else State("failed", _broken(part))
        if failure is not None:
            return State("failed", failure)
        if part is None:
            return State("missing")
        differs = differences(self._stored(stage, row.slide_id), expected)
        return State("outdated", told(differs), differs)

    def _stored(self, stage: str, slide_id: str) -> Fingerprint:
        """What a part was made from; the facts of a whole table are read with the first that is asked for."""
        if stage not in self._facts:
            self._facts[stage] = self.store.facts(stage)
        return Fingerprint(json.loads(self._facts[stage].get(slide_id, "{}")))


def _broken(part: Part) -> str:
    return part.damaged or "its file is gone or cut off; the next run makes it again"


def states_of(store: Store, plan: Plan) -> Iterator[tuple[Registered, dict[str, State]]]:
    """Every registered slide with the state of each stage; of retired ones none is looked at."""
    survey = Survey(store, plan)
    for row in survey.rows:
        stages = STAGES if row.status == "ready" else ()
        yield row, {stage: survey.state(stage, row) for stage in stages}


def stale_slides(store: Store, plan: Plan) -> pa.Table:
    """The view `stale_slides`: a row for each fact that differs between what is stored and what would be stored now."""
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
    """The facts that differ: name, as stored, as expected; None for one that is not among them."""
    names = sorted(stored.facts.keys() | expected.facts.keys())
    pairs = ((n, stored.facts.get(n), expected.facts.get(n)) for n in names)
    return tuple((n, was, now) for n, was, now in pairs if was != now)


def told(differs: tuple[tuple[str, Any, Any], ...], most: int = 3) -> str:
    """Differences as one line: `organ Breast → Lung, tile_stride 1.0 → 0.5`."""
    said = [f"{name} {_short(was)} → {_short(now)}" for name, was, now in differs[:most]]
    more = [f"{len(differs) - most} more"] if len(differs) > most else []
    return ", ".join([*said, *more])


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) if len(value) <= 3 else f"{len(value)} values"
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:8]}…"
    return "none" if value is None else str(value)


@contextmanager
def working(
    store: Store, stage: str, slide_id: str, waiting: Callable[[str], None] = lambda _: None
) -> Iterator[Registered]:
    """Holds a slide while one of its stages is brought up to date, and yields its row.

    Another run of the slide waits; `waiting` is told for whom. What the stage raises is kept as its failure, for `status`.
    """
    path = store.home / "locks" / "slides" / f"{slide_id}.lock"
    Registry(store).get(slide_id)  # before a lock is made for one that is not there
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
            _keep_failure(store, stage, slide_id, " ".join(said.split())[:1000])
            raise
        _forget_failure(store, stage, slide_id)


def _failures(store: Store) -> dict[tuple[str, str], str]:
    found = store.rows(f"select stage, slide_id, reason from {NAME}.parts.{FAILURES.name}")
    return {(stage, slide_id): reason for stage, slide_id, reason in found}


def _keep_failure(store: Store, stage: str, slide_id: str, reason: str) -> None:
    def work(cursor: Any) -> None:
        cursor.execute(f"delete from {NAME}.parts.{FAILURES.name} where stage = ? and slide_id = ?", [stage, slide_id])
        values = [slide_id, stage, reason, datetime.now(UTC)]
        cursor.execute(f"insert into {NAME}.parts.{FAILURES.name} values (?, ?, ?, ?)", values)

    try:
        store.lake.transact(work)
    except StpathError:
        return  # the failure itself is raised; a lake that cannot be written is most likely its cause


def _forget_failure(store: Store, stage: str, slide_id: str) -> None:
    if (stage, slide_id) in _failures(store):
        where = "where stage = ? and slide_id = ?"
        store.lake.transact(lambda c: c.execute(f"delete from {NAME}.parts.{FAILURES.name} {where}", [stage, slide_id]))
