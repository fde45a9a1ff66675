"""Names of organs and technologies: the model's own rows, and no unknown name that passes for padding."""

import pytest

from stpath_assets.errors import VocabularyError
from stpath_assets.vocabulary import tokens


def test_every_name_is_its_own_row() -> None:
    assert [tokens.organ_id(o) for o in tokens.ORGANS[3:]] == list(range(3, len(tokens.ORGANS)))
    assert [tokens.tech_id(t) for t in tokens.TECHS[1:]] == list(range(1, len(tokens.TECHS)))


def test_what_is_not_given_is_padding() -> None:
    assert (tokens.organ(None), tokens.tech(None)) == (None, None)
    assert tokens.ORGANS[tokens.organ_id(None)] == tokens.TECHS[tokens.tech_id(None)] == "<pad>"


@pytest.mark.parametrize(
    ("said", "name"), [("breast", "Breast"), ("SPINAL_CORD", "Spinal cord"), ("spinal-cord", "Spinal cord")]
)
def test_spelling_of_organs(said: str, name: str) -> None:
    assert tokens.organ(said) == name


@pytest.mark.parametrize(
    ("said", "name"),
    [("ST", "Spatial Transcriptomics"), ("visium", "Visium"), ("visium hd", "Visium HD"), ("VisiumHD", "Visium HD")],
)
def test_spelling_of_technologies(said: str, name: str) -> None:
    assert tokens.tech(said) == name


def test_organs_that_were_trained_as_others() -> None:
    assert tokens.organ("lymph node") == "Others"


@pytest.mark.parametrize("name", ["", "<pad>", "<mask>", "<unk>", "Brest", "left breast"])
def test_an_unknown_organ_is_an_error(name: str) -> None:
    with pytest.raises(VocabularyError, match=r"STPath has no organ token .*; .*known: Spinal cord, Brain, Breast"):
        tokens.organ(name)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(VocabularyError, match=r"did you mean Breast\?"):
        tokens.organ("Brest")


@pytest.mark.parametrize("name", ["", "<pad>", "Visum HD 3", "MERFISH"])
def test_an_unknown_technology_is_an_error(name: str) -> None:
    with pytest.raises(VocabularyError, match="STPath has no technology token"):
        tokens.tech(name)
