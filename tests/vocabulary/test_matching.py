"""Which measured gene is a predicted one, and that none is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.vocabulary.genes import Vocabulary
from stpath_assets.vocabulary.matching import RENAMED, match_genes

EPCAM_ID, VIM_ID = "ENSG00000119888", "ENSG00000026025"
VOCABULARY = Vocabulary.of({"EPCAM": EPCAM_ID, "VIM": VIM_ID, "GA733": EPCAM_ID})


def found(predicted: list[str], measured: list[str]) -> list[tuple[str | None, str]]:
    return [(m.measured, m.how) for m in match_genes(predicted, measured, lambda: VOCABULARY)]


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [
        (["EPCAM"], ["VIM", "EPCAM", "epcam"], ("EPCAM", "same")),
        ([EPCAM_ID], [f"{EPCAM_ID}.15"], (f"{EPCAM_ID}.15", "id version")),
        ([f"{EPCAM_ID}.1"], [f"{EPCAM_ID}.2"], (f"{EPCAM_ID}.2", "id version")),
        (["C1orf112"], ["C1ORF112"], ("C1ORF112", "case")),
        (["ATP5F1B"], ["ATP5B"], ("ATP5B", "renamed")),
        (["ATP5B"], ["ATP5F1B"], ("ATP5F1B", "renamed")),
        (["H3F3B"], ["H3-3B"], ("H3-3B", "renamed")),
        (["EPCAM"], [f"{EPCAM_ID}.15", VIM_ID], (f"{EPCAM_ID}.15", "vocabulary")),
        (["EPCAM"], ["VIM"], (None, "not measured")),
        (["Epcam"], ["EPCAM", "EpCAM"], (None, "not measured")),  # which of both?
    ],
)
def test_the_same_gene_under_two_names(predicted: list[str], measured: list[str], expected: tuple[str, str]) -> None:
    assert found(predicted, measured) == [expected]


def test_the_vocabulary_is_asked_only_for_ensembl_ids() -> None:
    def never() -> Vocabulary:
        raise AssertionError

    assert [m.measured for m in match_genes(["EPCAM"], ["TROP2"], never)] == [None]


NAMES = st.sampled_from(["A", "a", "B", "b", "ATP5B", "ATP5F1B", "atp5b", EPCAM_ID, f"{EPCAM_ID}.1", "EPCAM", "GA733"])


@given(st.lists(NAMES, unique=True), st.lists(NAMES, unique=True))
def test_each_name_is_taken_once_and_the_same_name_first(predicted: list[str], measured: list[str]) -> None:
    matches = match_genes(predicted, measured, lambda: VOCABULARY)
    assert [m.gene for m in matches] == predicted
    taken = [m.measured for m in matches if m.measured is not None]
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(measured)
    assert all((m.measured == m.gene) == (m.how == "same") for m in matches)
    assert all(m.measured == m.gene for m in matches if m.gene in measured)
    assert all((m.measured is None) == (m.how == "not measured") for m in matches)


def test_no_symbol_of_the_list_is_both_an_old_and_a_new_one() -> None:
    assert not set(RENAMED) & set(RENAMED.values())
    assert len(set(RENAMED.values())) == len(RENAMED)
