"""Which fitted predictor may predict which slide, and what is said of one that may not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.errors import LeakageError, SettingsError
from stpath_assets.prediction.references import Stored, asked_models, choose, choose_all
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered


def slide(slide_id: str, patient: str | None = None, sha256: str | None = None) -> Registered:
    known = dict.fromkeys(Registered.__dataclass_fields__)
    return Registered(**known | {"slide_id": slide_id, "patient_id": patient, "sha256": sha256 or f"sha of {slide_id}"})


def fitted(slides: dict[str, str], left_out: str = "", model: str = "ridge:r") -> Stored:
    scans = tuple(f"sha of {s}" for s in slides)
    return Stored(model, left_out, "{}", tuple(slides), tuple(slides.values()), scans, 99, 5, "demo", "d", "f", "s")


TWO = {"a": "P", "b": "Q"}
COHORT = [fitted(TWO), fitted({"b": "Q"}, "patient P"), fitted({"a": "P"}, "patient Q")]


@pytest.mark.parametrize(
    ("row", "references", "relation", "left_out"),
    [
        (slide("c", "R"), COHORT, "other patient", ""),
        (slide("c"), COHORT, "unknown patient", ""),
        (slide("c", "R"), [fitted({"a": "P", "b": ""})], "unknown patient", ""),
        (slide("a", "P"), COHORT, "patient left out", "patient P"),
        (slide("c", "Q"), COHORT, "patient left out", "patient Q"),
        (slide("z", sha256="sha of a"), COHORT, "patient left out", "patient P"),
        (slide("a"), [fitted({"a": "", "b": ""}), fitted({"b": ""}, "slide a")], "slide left out", "slide a"),
    ],
)
def test_no_slide_is_predicted_by_what_has_seen_it(
    row: Registered, references: list[Stored], relation: str, left_out: str
) -> None:
    chosen = choose(references, "ridge:r", row, allowed=False)
    assert (chosen.relation, chosen.stored.left_out) == (relation, left_out)


ONE = [fitted({"a": "P"})]


def test_a_slide_of_a_patient_that_it_was_fitted_to_is_refused_and_flagged_where_allowed() -> None:
    with pytest.raises(LeakageError, match=r"^b: ridge:r was fitted to another slide of patient P.*PATIENT=b"):
        choose(ONE, "ridge:r", slide("b", "P"), allowed=False)
    assert choose(ONE, "ridge:r", slide("b", "P"), allowed=True).relation == "same patient"
    for same in (slide("a", "P"), slide("again", "P", "sha of a")):
        with pytest.raises(LeakageError, match="was fitted to this slide"):
            choose(ONE, "ridge:r", same, allowed=True)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "P", "Q", "R"]), min_size=1),
    st.sampled_from("abcdefg"),
    st.sampled_from([None, "P", "Q", "R"]),
)
def test_whatever_is_chosen_has_seen_neither_the_slide_nor_its_patient(
    slides: dict[str, str], slide_id: str, patient: str | None
) -> None:
    groups = {f"patient {p}" if p else f"slide {s}" for s, p in slides.items()}
    copies = []
    for group in groups:
        kept = {s: p for s, p in slides.items() if (f"patient {p}" if p else f"slide {s}") != group}
        copies += [fitted(kept, group)] if kept else []
    try:
        chosen = choose([fitted(slides), *copies], "ridge:r", slide(slide_id, patient), allowed=False)
    except LeakageError:
        return
    assert slide_id not in chosen.stored.slides
    assert patient is None or patient not in chosen.stored.patients


def test_a_refused_predictor_leaves_the_others() -> None:
    references = [*ONE, replace(ONE[0], model="knn:k", slides=("x",), patients=("X",), scans=())]
    settings = Settings(models="stpath, ridge:r,knn:k,knn:k")
    chosen, refused = choose_all(references, slide("a", "P"), settings)
    assert [c.stored.model for c in chosen] == ["knn:k"]
    assert [r.partition(",")[0] for r in refused] == ["a: ridge:r was fitted to this slide"]


@pytest.mark.parametrize("models", ["", " , ", "ridge", "stpath,mine"])
def test_what_is_no_model_is_said(models: str) -> None:
    with pytest.raises(SettingsError, match=r"give stpath, or predictors that were fitted"):
        asked_models(Settings(models=models))


def test_a_predictor_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(
        SettingsError, match=r"knn:x: no such predictor here; fitted are: ridge:r\. Fit it: .* fit x --model knn"
    ):
        choose(ONE, "knn:x", slide("c"), allowed=False)
