"""Writers and readers at once, of `benchmarks.catalog`: errors and mixed results are counted, and none is allowed.

Every write of a slide stores its predictions and its scores in one stage, all of them one number that no other write has. So who
sees two numbers in one slide, or fewer values than a slide has, has seen half of a write.
"""

import collections
import multiprocessing
import random
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from benchmarks.catalog_queries import answer
from benchmarks.catalog_roots import TILES, Roots, metrics_rows, panel, slide_name, tile_ids
from stpath_assets.slides import Registry
from stpath_assets.storage import Home, Store
from stpath_assets.storage.extensions import load_extensions
from stpath_assets.storage.lake import Lake
from stpath_assets.tables import EVALUATION_METRICS, STPATH_PREDICTIONS

WRITERS = 4
SLIDES = 60
FIRST = -1.0
"""What all values are before the first write."""

_OF_SLIDES = (
    "with p as (select slide_id, min(expression_log1p) as low, max(expression_log1p) as high, count(*) as n "
    "from stpath_predictions {where} group by slide_id), "
    "m as (select slide_id, min(mse) as low, max(mse) as high, count(*) as n from evaluation_metrics {where} group by slide_id) "
    "select p.slide_id, p.low, p.high, p.n, m.low as mse_low, m.high as mse_high, m.n as scores "
    "from p left join m using (slide_id)"
)
COHORT = _OF_SLIDES.format(where="")
GENES = (
    "select slide_id, gene, min(expression_log1p) as low, max(expression_log1p) as high from stpath_predictions "
    "where gene in ('{0}', '{1}') group by all"
)


@dataclass
class Tally:
    """What a process did, by kind; `took_s` has the times of each kind of work."""

    took_s: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    retries: int = 0


@dataclass(frozen=True)
class Outcome:
    """Tallies of all processes, by their role."""

    tallies: dict[str, Tally]
    seconds: float

    @property
    def errors(self) -> list[str]:
        """Every error, with whose it is."""
        return [f"{role}: {e}" for role, t in self.tallies.items() for e in t.errors]

    @property
    def mixed(self) -> list[str]:
        """Every mixed result, with whose it is."""
        return [f"{role}: {m}" for role, t in self.tallies.items() for m in t.mixed]

    @property
    def retries(self) -> int:
        """How often storage tried again."""
        return sum(t.retries for t in self.tallies.values())

    def took(self, kind: str) -> list[float]:
        """Seconds of each piece of work of a kind, of all processes."""
        return [s for t in self.tallies.values() for s in t.took_s.get(kind, [])]

    def text(self) -> str:
        """What was done, as words."""
        kinds = sorted({k for t in self.tallies.values() for k in t.took_s})
        return ", ".join(f"{len(self.took(k)):,} {k} (median {statistics.median(self.took(k)):.2f} s)" for k in kinds)


def contend(roots: Roots, seconds: float) -> Outcome:
    """Four writers and four readers over the root of `SLIDES` slides, whose values all are `FIRST`."""
    roles: dict[str, Callable[..., None]] = {f"writer {i}": write for i in range(WRITERS)}
    roles |= {"reader by query": read_by_query, "reader by Store": read_by_store}
    roles |= {"plain client": read_plainly, "plain client, attaching anew": read_plainly_anew}
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    ready = context.Barrier(len(roles))
    began = time.perf_counter()
    processes = [
        context.Process(target=_play, args=(role, work, roots, seconds, i, ready, results), daemon=True)
        for i, (role, work) in enumerate(roles.items())
    ]
    for process in processes:
        process.start()
    tallies = dict(results.get(timeout=seconds + 300) for _ in processes)
    for process in processes:
        process.join()
    return Outcome({role: tallies[role] for role in roles}, time.perf_counter() - began)


def _play(
    role: str, work: Callable[..., None], roots: Roots, seconds: float, seed: int, ready: Any, results: Any
) -> None:
    """One process: does its work until the time is up; errors are counted, and it goes on."""
    tally, rng = Tally(), random.Random(seed)
    again = Lake._again

    def counting(self: Lake, error: BaseException | None, attempt: int) -> bool:
        tries = again(self, error, attempt)
        tally.retries += tries
        return tries

    Lake._again = counting  # type: ignore[method-assign]
    store = roots.store(SLIDES)
    store.open()
    ready.wait(120)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            work(tally, roots, store, rng, seed, end)
        except Exception as e:
            said = traceback.extract_tb(e.__traceback__)[-1]
            tally.errors.append(f"{type(e).__name__}: {' '.join(str(e).split())[:300]} ({said.filename}:{said.lineno})")
    tally.took_s = dict(tally.took_s)
    results.put((role, tally))


def write(tally: Tally, roots: Roots, store: Store, rng: random.Random, seed: int, end: float) -> None:
    """One stage of a random slide: predictions and scores of one number that is this write's own."""
    slide_id = slide_name(rng.randrange(SLIDES))
    # Exact in float32, and no other writer's.
    value = float(WRITERS * len(tally.took_s["writes"]) + seed)
    fingerprint = Registry(store).get(slide_id).fingerprint.extend("benchmark", "1", value=value)
    began = time.perf_counter()
    with store.stage(slide_id, fingerprint) as stage:
        values = np.full((TILES, len(panel())), value, np.float32)
        stage.write_by_gene(STPATH_PREDICTIONS.name, {"tile_id": tile_ids()}, [(panel(), values)], model="stpath-demo")
        stage.write(EVALUATION_METRICS.name, metrics_rows(slide_id, value))
    tally.took_s["writes"].append(time.perf_counter() - began)


def read_by_query(tally: Tally, roots: Roots, store: Store, rng: random.Random, *_: Any) -> None:
    """`catalog.query`: the cohort, two genes of all slides, and one slide."""
    _ask(tally, rng, lambda sql: [tuple(r.values()) for r in answer(roots.settings(SLIDES), sql).to_pylist()])


def read_by_store(tally: Tally, roots: Roots, store: Store, rng: random.Random, *_: Any) -> None:
    """`Store.read_by_gene` and `Store.read` of a random slide; two reads, so each is looked at by itself."""
    slide_id = slide_name(rng.randrange(SLIDES))
    began = time.perf_counter()
    part = store.read_by_gene(STPATH_PREDICTIONS.name, slide_id, sorted(rng.sample(panel(), 2)))
    if part.values.shape != (TILES, 2) or part.values.min() != part.values.max():
        tally.mixed.append(f"{slide_id}: {part.values.shape} from {part.values.min()} to {part.values.max()}")
    mse = np.asarray(store.read(EVALUATION_METRICS.name, slide_id)["mse"])
    if len(mse) != len(panel()) or mse.min() != mse.max():
        tally.mixed.append(f"{slide_id}: scores from {mse.min()} to {mse.max()}")
    tally.took_s["reads by Store"].append(time.perf_counter() - began)


def read_plainly(tally: Tally, roots: Roots, store: Store, rng: random.Random, seed: int, end: float) -> None:
    """A client without this package, on one connection for all its questions."""
    with _plain(store.place) as connection:
        while time.monotonic() < end:
            _ask(tally, rng, lambda sql: connection.execute(sql).fetchall())


def read_plainly_anew(tally: Tally, roots: Roots, store: Store, rng: random.Random, *_: Any) -> None:
    """A client without this package that connects for each question."""
    with _plain(store.place) as connection:
        _ask(tally, rng, lambda sql: connection.execute(sql).fetchall(), cohort=False)


def _plain(home: Home) -> duckdb.DuckDBPyConnection:
    """The lake as `stpath-assets sql --attach` says to open it."""
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    load_extensions(connection, "sqlite_scanner", "ducklake")
    options = f"data_path '{home.tables_path}', override_data_path true, read_only"
    connection.execute(f"attach 'ducklake:sqlite:{home.sqlite.absolute()}' as lake ({options})")
    connection.execute("use lake.main")
    return connection


def _ask(tally: Tally, rng: random.Random, ask: Callable[[str], list[Any]], cohort: bool = True) -> None:
    """One question of a kind drawn, its answer looked at."""
    kind = rng.choice(["cohort queries", "genes", "slides"] if cohort else ["genes", "slides"])
    began = time.perf_counter()
    if kind == "genes":
        rows = ask(GENES.format(*rng.sample(panel(), 2)))
        by_slide = collections.defaultdict(set)
        for slide_id, _, low, high in rows:
            by_slide[slide_id] |= {low, high}
        if len(rows) != 2 * SLIDES:
            tally.mixed.append(f"{len(rows)} rows of two genes of {SLIDES} slides")
        tally.mixed += [f"{s}: values {sorted(v)}" for s, v in by_slide.items() if len(v) != 1]
    else:
        one = slide_name(rng.randrange(SLIDES))
        rows = ask(COHORT if kind == "cohort queries" else _OF_SLIDES.format(where=f"where slide_id = '{one}'"))
        if len(rows) != (SLIDES if kind == "cohort queries" else 1):
            tally.mixed.append(f"{len(rows)} slides in the answer")
        for slide_id, low, high, n, m_low, m_high, m in rows:
            if not (low == high == m_low == m_high and n == TILES * len(panel()) and m == len(panel())):
                tally.mixed.append(f"{slide_id}: {n} values from {low} to {high}, {m} scores from {m_low} to {m_high}")
    tally.took_s[kind].append(time.perf_counter() - began)
