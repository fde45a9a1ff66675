"""Genes and their columns: found by symbol or Ensembl id, refused with what is close, never guessed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.errors import VocabularyError, WeightsError
from stpath_assets.vocabulary import Vocabulary
from tests.prediction.conftest import VOCABULARY

MAPPING = {
    "ERBB2": "ENSG00000141736", "HER2": "ENSG00000141736", "EPCAM": "ENSG00000119888", "Tp53": "ENSG00000141510",
    "TP53": "ENSG00000999999", "AC012345.1": "ENSG00000000001", "C1orf43": "ENSG00000143612",
}  # fmt: skip
SMALL = Vocabulary.of(MAPPING)


@given(st.dictionaries(st.text("ABC", min_size=1), st.text("xyz", min_size=1), min_size=1, max_size=30))
def test_a_column_is_2_and_the_rank_of_the_id(mapping: dict[str, str]) -> None:
    vocabulary = Vocabulary.of(mapping)
    ids = sorted(set(mapping.values()))
    assert vocabulary.columns == {s: 2 + ids.index(i) for s, i in mapping.items()}
    assert vocabulary.width == len(ids) + 2
    assert [mapping[s] for s in vocabulary.symbols] == ids
    names, columns = vocabulary.select(None)
    assert names == vocabulary.symbols
    assert columns.tolist() == [vocabulary.columns[s] for s in names] == list(range(2, vocabulary.width))


@pytest.mark.parametrize(
    ("asked", "symbol"),
    [
        ("EPCAM", "EPCAM"), ("epcam", "EPCAM"), (" EPCAM\n", "EPCAM"), ("HER2", "ERBB2"), ("her2", "ERBB2"),
        ("c1ORF43", "C1orf43"), ("AC012345.1", "AC012345.1"), ("ENSG00000119888", "EPCAM"), ("ensg00000119888", "EPCAM"),
        ("ENSG00000119888.14", "EPCAM"), ("Tp53", "Tp53"), ("TP53", "TP53"),
    ],
)  # fmt: skip
def test_a_gene_is_found_by(asked: str, symbol: str) -> None:
    assert SMALL.find(asked) == SMALL.columns[symbol]


@pytest.mark.parametrize("asked", ["EPCAM2", "", "ENSG00000119889", "ENSG", "tp53", "AC012345.2", "AC012345"])
def test_a_gene_is_not_guessed(asked: str) -> None:
    assert SMALL.find(asked) is None, "tp53 could be either of two genes"


def test_versions_of_an_id_matter_where_they_tell_genes_apart() -> None:
    vocabulary = Vocabulary.of({"A": "ENSG00000000001.1", "B": "ENSG00000000001.2", "C": "ENSG00000000003.4"})
    assert vocabulary.find("ENSG00000000001.2") == vocabulary.columns["B"]
    assert vocabulary.find("ENSG00000000001") is None
    assert vocabulary.find("ENSG00000000003") == vocabulary.find("ENSG00000000003.9") == vocabulary.columns["C"]


def test_genes_are_named_as_they_were_asked_for() -> None:
    names, columns = SMALL.select(["her2", "ENSG00000119888.2", "ERBB2"])
    assert names == ["her2", "ENSG00000119888.2", "ERBB2"]
    assert columns.tolist() == [SMALL.columns["ERBB2"], SMALL.columns["EPCAM"], SMALL.columns["ERBB2"]]


def test_unknown_genes_are_one_error_with_close_matches() -> None:
    with pytest.raises(VocabularyError) as e:
        SMALL.select(["EPCAM", "ERBB22", "QQQQ"])
    assert str(e.value) == (
        "genes that these weights do not know: ERBB22 (close: ERBB2, HER2); QQQQ; they know 6: correct or leave them out"
    )


def test_many_unknown_genes_stay_one_line() -> None:
    with pytest.raises(VocabularyError, match="Q9 and 15 more; they know") as e:
        SMALL.select([f"Q{i}" for i in range(25)])
    assert len(str(e.value)) < 500


def test_unknown_genes_can_be_left_out() -> None:
    names, columns = SMALL.select(["QQQQ", "EPCAM"], "skip")
    assert (names, columns.tolist()) == (["EPCAM"], [SMALL.columns["EPCAM"]])
    with pytest.raises(VocabularyError, match=r"none of the genes .* \(2 unknown\)"):
        SMALL.select(["QQQQ", "RRRR"], "skip")


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        (["A", "EPCAM", "A"], "genes given twice: A"),
        ("EPCAM", "must be a list of symbols, not the text 'EPCAM'"),
        ([], "no gene asked for; give at least one, or None for all"),
    ],
)
def test_requests_that_mean_nothing(genes, said: str) -> None:
    with pytest.raises(VocabularyError, match=said):
        SMALL.select(genes)


def test_the_file_of_the_golden_weights() -> None:
    vocabulary = Vocabulary.load(VOCABULARY)
    assert len(json.loads(VOCABULARY.read_text())) == 320
    assert (len(vocabulary), vocabulary.width) == (300, 302)
    names, columns = vocabulary.select(np.array(["ERBB2", "ESR1"]))
    assert names == ["ERBB2", "ESR1"]
    assert len(set(columns.tolist())) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such vocabulary file; check STPATH_VOCABULARY"),
        ("{", "is not JSON"),
        ("[]", "must be one JSON object"),
        ("{}", "must be one JSON object"),
        ('{"A": 3}', "gene symbol to Ensembl id"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "symbol2ensembl.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WeightsError, match=said) as e:
        Vocabulary.load(path)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)
