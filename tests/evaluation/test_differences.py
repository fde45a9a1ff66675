"""Differences of two models' scores over the same spots, and how well genes are predicted over patients."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy

from benchmarks.intervals import likeness
from stpath_assets.evaluation.differences import differences_of
from stpath_assets.evaluation.intervals import Spacing, difference
from stpath_assets.evaluation.overviews import draw_cohort
from stpath_assets.evaluation.scores import correlate
from stpath_assets.evaluation.storing import SHARES
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import start
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import EVALUATION_METRICS, PREDICTION_ERRORS, SLIDES
from tests.asked import ask

TRIES = 1500


@pytest.mark.parametrize(("r_a", "r_b"), [(0.5, 0.3), (0.8, 0.75), (0.0, 0.0), (0.4, -0.2)])
def test_the_interval_holds_the_true_difference_at_its_rate(r_a: float, r_b: float) -> None:
    rng, k = np.random.default_rng(1), 120
    y, ea, shared = (rng.standard_normal((k, TRIES)) for _ in range(3))
    a = r_a * y + math.sqrt(1 - r_a**2) * ea
    b = r_b * y + math.sqrt(1 - r_b**2) * (0.6 * ea + 0.8 * shared)
    found = correlate(a, y), correlate(b, y), correlate(a, b)
    low, high = difference(*found, np.full(TRIES, float(k)))
    assert 0.93 <= np.mean((low <= r_a - r_b) & (r_a - r_b <= high)) <= 0.97


def test_the_interval_holds_it_where_neighbours_are_alike() -> None:
    xy = np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2) * 200.0
    root, rng = likeness(xy, 400), np.random.default_rng(2)
    y, ea, eb = (root @ rng.standard_normal((len(xy), 400)) for _ in range(3))
    a, b = 0.6 * y + 0.8 * ea, 0.3 * y + math.sqrt(1 - 0.09) * eb
    spacing = Spacing.of(xy)
    n = np.fmin(spacing.effective_n(a, y), spacing.effective_n(b, y))
    low, high = difference(correlate(a, y), correlate(b, y), correlate(a, b), n)
    assert 0.91 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.99


def test_each_pair_of_models_is_compared_over_the_genes_of_both() -> None:
    rng = np.random.default_rng(0)
    counts, depth, xy = rng.poisson(5, (40, 3)).astype(float), np.full(40, 100.0), rng.uniform(0, 4000, (40, 2))
    made = {"stpath": counts + 1, "ridge:r": rng.standard_normal((40, 3))}
    made["stpath"][:, 2] = 1.0  # constant: no r
    order = ["A", "B", "C"]

    def read(model: str, genes: Any) -> Any:
        columns = [order.index(g) for g in genes]
        return made[model][:, columns], counts[:, columns]

    rows = pa.concat_tables(differences_of("s", {"stpath": order, "ridge:r": order[1:]}, depth, xy, read)).to_pylist()
    assert [(r["gene"], r["protocol"], r["model"], r["than"]) for r in rows] == [
        (gene, protocol, "stpath", "ridge:r")
        for protocol in ("tutorial:raw_log1p", "tutorial:cp10k_log1p")
        for gene in ("B", "C")
    ]
    y = np.log1p(counts[:, 1])
    expected = scipy.stats.pearsonr(made["stpath"][:, 1], y)[0] - scipy.stats.pearsonr(made["ridge:r"][:, 1], y)[0]
    assert rows[0]["r_difference"] == pytest.approx(expected, abs=1e-12)
    assert rows[0]["low"] < expected < rows[0]["high"]
    assert (rows[1]["r_difference"], rows[1]["low"], rows[1]["high"]) == (None, None, None)
    assert list(differences_of("s", {"stpath": order}, depth, xy, read)) == []


# ---- genes over patients


def scored(
    store: Store, slide_id: str, r: float | None, patient: str | None, genes: Sequence[str] = ("EPCAM",), **row: Any
) -> None:
    values = {
        "slide_id": slide_id, "uri": slide_id, "sha256": slide_id, "size_bytes": 1, "width_px": 1, "height_px": 1, "mpp": 0.5,
        "mpp_source": "file", "backend": "image", "levels": 1, "status": "ready", "warnings": [], "organ": "Breast",
        "registered_at": datetime(2026, 1, 1, tzinfo=UTC), "patient_id": patient,
    }  # fmt: skip
    store.create()
    store.lake.transact(lambda c: insert_rows(c, SLIDES, pa.Table.from_pylist([values], SLIDES.schema)))
    of_gene = {"slide_id": slide_id, "model": "stpath", "protocol": "p", "n_spots": 9, "pearson_r": r,
               "mse": 0.1, "r_beyond_depth": None if r is None else r / 2, **row}  # fmt: skip
    rows = pa.Table.from_pylist([{**of_gene, "gene": gene} for gene in genes], EVALUATION_METRICS.schema)
    store.write(EVALUATION_METRICS.name, slide_id, rows, start(slide_sha256=slide_id))


def test_a_genes_reliability_is_over_patients_not_slides(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    of = {"a1": (0.8, "A"), "a2": (0.6, "A"), "b": (0.5, "B"), "c": (0.1, None), "d": (None, "D")}
    for slide_id, (r, patient) in of.items():
        scored(store, slide_id, r, patient)
    scored(store, "too_good", 0.99, "A", relation="same patient")
    (found,) = ask(store.home, "select organ, slides, patients, r, r_low, r_high, r_beyond_depth from gene_reliability")
    z = np.array([(math.atanh(0.8) + math.atanh(0.6)) / 2, math.atanh(0.5), math.atanh(0.1)])
    low, high = scipy.stats.t.interval(0.95, 2, z.mean(), z.std(ddof=1) / math.sqrt(3))
    beyond = np.array([(math.atanh(0.4) + math.atanh(0.3)) / 2, math.atanh(0.25), math.atanh(0.05)]).mean()
    assert found[:3] == ("Breast", 4, 3)
    np.testing.assert_allclose(found[3:], np.tanh([z.mean(), low, high, beyond]), atol=1e-4)


def test_pooled_scores_are_those_of_all_spots_taken_apart(tmp_path: Path) -> None:
    """From each slide's means, deviations and r alone, what numpy finds in all spots."""
    store, rng, all_x, all_y, at = Store(tmp_path / "home"), np.random.default_rng(3), [], [], []
    for i, (n, level) in enumerate([(40, 0.0), (25, 2.0), (60, 5.0), (30, 1.0)]):
        y = level + rng.standard_normal(n)
        x = 0.3 * (y - level) + 0.4 * level + rng.standard_normal(n)
        r = float(np.corrcoef(x, y)[0, 1])
        more = {"n_spots": n, "mean_predicted": x.mean(), "sd_predicted": x.std(), "mean_measured": y.mean(),
                "sd_measured": y.std(), "protocol": "tutorial:raw_log1p"}  # fmt: skip
        scored(store, f"s{i}", r, f"P{i}", **more)
        all_x, all_y, at = [*all_x, x], [*all_y, y], [*at, np.full(n, i)]
    x, y, slide = np.concatenate(all_x), np.concatenate(all_y), np.concatenate(at)
    mx, my = (np.array([v[slide == i].mean() for i in range(4)])[slide] for v in (x, y))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in ((x, y), (x - mx, y - my), (mx, my), (my, y))]
    columns = "protocol, slides, spots, r_pooled, r_within, r_between, r_slide_means"
    (found,) = ask(store.home, f"select {columns} from pooled_scores")
    assert found[:3] == ("pooled:raw_log1p", 4, 155)
    np.testing.assert_allclose(found[3:], expected, atol=1e-9)
    assert found[6] > 0.8, "knowing the slides' means alone looks like a good model"


@pytest.mark.soak
def test_errors_within_which_a_new_patient_lies_hold_at_their_rate(tmp_path: Path) -> None:
    """Patients differ in how far predictions are off; a new one is as one of the cohort."""
    rng, genes, patients = np.random.default_rng(5), [f"G{g:02d}" for g in range(24)], 100
    store, middles = Store(tmp_path / "home"), (np.arange(SHARES) + 0.5) / SHARES

    def errors(n: int, spots: int) -> np.ndarray:
        """Absolute errors (n, genes, spots) of n patients."""
        spread = np.exp(0.4 * rng.standard_normal((n, len(genes), 1)))
        return np.abs(spread * rng.standard_normal((n, len(genes), spots)))

    for i, of_patient in enumerate(errors(patients, 300)):
        scored(store, f"s{i}", 0.5, f"P{i}", genes=genes)
        rows = [
            {
                "slide_id": f"s{i}",
                "gene": gene,
                "model": "stpath",
                "protocol": "p",
                "quantiles": np.quantile(e, middles),
            }
            for gene, e in zip(genes, of_patient, strict=True)
        ]
        table = pa.Table.from_pylist(rows, PREDICTION_ERRORS.schema)
        store.write(PREDICTION_ERRORS.name, f"s{i}", table, start(slide_sha256=f"s{i}"))
    found = np.array(ask(store.home, "select within_80, within_95 from gene_reliability order by gene"))
    new = errors(400, 200)
    for column, rate in ((0, 0.8), (1, 0.95)):
        assert (new <= found[:, column][None, :, None]).mean() == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize(
    ("patients", "known"), [(3, (False, False)), (4, (True, False)), (18, (True, False)), (19, (True, True))]
)
def test_too_few_patients_promise_nothing(tmp_path: Path, patients: int, known: tuple[bool, bool]) -> None:
    store = Store(tmp_path / "home")
    for i in range(patients):
        scored(store, f"s{i}", 0.5, f"P{i}")
        row = {"slide_id": f"s{i}", "gene": "EPCAM", "model": "stpath", "protocol": "p", "quantiles": [0.1, 0.5]}
        store.write(
            PREDICTION_ERRORS.name,
            f"s{i}",
            pa.Table.from_pylist([row], PREDICTION_ERRORS.schema),
            start(slide_sha256=f"s{i}"),
        )
    (found,) = ask(store.home, "select within_80, within_95 from gene_reliability")
    assert tuple(value is not None for value in found) == known


def test_one_patient_has_no_interval_and_a_perfect_r_is_finite(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    scored(store, "a", 1.0, "A")
    (found,) = ask(store.home, "select slides, patients, r, r_low, r_high from gene_reliability")
    assert found == (1, 1, pytest.approx(1.0), None, None)


def test_the_cohorts_picture_shows_the_first_and_last_genes_and_follows_the_scores(tmp_path: Path) -> None:
    store, genes = Store(tmp_path / "home"), [f"G{g:02d}" for g in range(60)]
    of = {"model": "ridge:r", "protocol": "tutorial:cp10k_log1p"}
    for slide_id in "ab":
        scored(store, slide_id, 0.5, slide_id, genes=genes, **of)
    scored(store, "c", 0.9, "c", genes=genes[40:50], **of)
    drawn = draw_cohort(store)
    assert {m: p.name for m, p in drawn.items()} == {"ridge:r": "cohort_ridge-r.png"}
    at = drawn["ridge:r"].stat().st_mtime_ns
    assert draw_cohort(store)["ridge:r"].stat().st_mtime_ns == at, "nothing has changed"
    store.lake.transact(lambda c: c.execute("update lake.parts.slides set status = 'retired' where slide_id = 'c'"))
    assert draw_cohort(store)["ridge:r"].stat().st_mtime_ns > at
    store.lake.transact(lambda c: c.execute("update lake.parts.slides set status = 'retired' where slide_id = 'b'"))
    assert draw_cohort(store) == {}
    assert not (store.home / "figures" / "cohort_ridge-r.png").exists()
