"""The rows of `evaluation_metrics`: one for each gene and protocol, and each score that of its function."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from stpath_assets.evaluation import storing
from stpath_assets.evaluation.intervals import Spacing, fisher
from stpath_assets.evaluation.protocols import PROTOCOLS, noise_ceiling
from stpath_assets.evaluation.scores import correlate, partial_r, score
from stpath_assets.evaluation.storing import metrics_of
from stpath_assets.tables import EVALUATION_METRICS

K = 60


class Section:
    """Spots with counts and a prediction; remembers how many genes it was asked for at a time."""

    def __init__(self, genes: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.genes = [f"G{i:04}" for i in range(genes)]
        self.xy_um = rng.uniform(0, 3000, (K, 2))
        self.counts = rng.poisson(rng.gamma(1, 6, (K, 1)) * rng.gamma(1, 1, genes)).astype(float)
        self.depth = self.counts.sum(axis=1) + 100
        self.predicted = np.log1p(self.counts) * 0.4 + rng.normal(0, 1, self.counts.shape)
        self.asked: list[int] = []

    def read(self, genes: Sequence[str]) -> tuple[npt.NDArray, npt.NDArray]:
        self.asked.append(len(genes))
        columns = [self.genes.index(gene) for gene in genes]
        return self.predicted[:, columns], self.counts[:, columns]

    def rows(self) -> pa.Table:
        found = metrics_of("S1", "stpath", self.depth, self.xy_um, self.read, self.genes)
        return pa.concat_tables([EVALUATION_METRICS.schema.empty_table(), *found])


def test_each_gene_has_a_row_of_each_protocol() -> None:
    section = Section(3)
    table = section.rows()
    assert table.schema.equals(EVALUATION_METRICS.schema)
    assert table["gene"].to_pylist() == section.genes * 2
    assert table["protocol"].to_pylist() == [p.name for p in PROTOCOLS for _ in section.genes]
    assert {*table["slide_id"].to_pylist(), *table["model"].to_pylist()} == {"S1", "stpath"}
    assert set(table["n_spots"].to_pylist()) == {K}


@pytest.mark.parametrize("which", range(len(PROTOCOLS)))
def test_each_score_is_that_of_its_function(which: int) -> None:
    section, protocol = Section(4), PROTOCOLS[which]
    table = section.rows().slice(4 * which, 4)
    measured, log_depth = protocol.scale(section.counts, section.depth), np.log1p(section.depth)[:, None]
    expected = score(section.predicted, measured)
    r, of_depth = expected["pearson_r"], correlate(measured, log_depth)
    n = Spacing.of(section.xy_um).effective_n(section.predicted, measured)
    low, high = fisher(r, n)
    expected |= {
        "pearson_low": low,
        "pearson_high": high,
        "n_effective": n,
        "r_depth": of_depth,
        "r_beyond_depth": partial_r(r, correlate(section.predicted, log_depth), of_depth),
        "noise_ceiling": noise_ceiling(section.counts, section.depth, protocol.scale),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(np.array(table[name].to_pylist(), float), values, rtol=1e-12)
    assert (np.abs(table["r_beyond_depth"].to_numpy()) < 1).all()


def test_genes_are_read_and_scored_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    section = Section(25)
    whole = section.rows()
    assert section.asked == [25]
    monkeypatch.setattr(storing, "_GENES", 10)
    again = Section(25)
    order = [("protocol", "ascending"), ("gene", "ascending")]
    found, expected = (table.sort_by(order).drop(["noise_ceiling"]).to_pydict() for table in (again.rows(), whole))
    for name, values in expected.items():
        assert found[name] == (pytest.approx(values, rel=1e-6) if isinstance(values[0], float) else values)
    assert again.asked == [10, 10, 5]


def test_undefined_scores_are_null() -> None:
    section = Section(2)
    section.counts[:, 0] = 2
    row = section.rows().to_pylist()[0]
    names = ("pearson_r", "pearson_low", "pearson_high", "n_effective", "r2", "r_depth", "r_beyond_depth")
    assert [row[name] for name in names] == [None] * len(names)
    assert row["mse"] > 0


def test_a_spot_without_any_count_is_scored_like_the_others() -> None:
    section = Section(3)
    section.counts[7], section.depth[7] = 0, 0
    for row in section.rows().to_pylist():
        assert np.isfinite(
            [row["pearson_r"], row["pearson_low"], row["mse"], row["r_depth"], row["r_beyond_depth"]]
        ).all()


def test_without_genes_there_are_no_rows() -> None:
    assert Section(0).rows().num_rows == 0
