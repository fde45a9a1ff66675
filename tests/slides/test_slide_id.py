"""slide_ids made from file names: always ids, the same ones again, and unchanged where a name is one already."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stpath_assets.slides import slide_id_from_name
from stpath_assets.storage import SLIDE_ID

IDS = st.from_regex(SLIDE_ID, fullmatch=True)
# File names are mostly plain: text drawn from all of Unicode alone would hardly ever try dots and suffixes.
NAMES = st.text(max_size=300) | st.text("aZ0._- é中/\\\n\0", max_size=300)


@given(NAMES)
def test_any_name_gives_an_id(name: str) -> None:
    assert SLIDE_ID.fullmatch(slide_id_from_name(name))


@given(NAMES)
def test_an_id_gives_itself(name: str) -> None:
    once = slide_id_from_name(name)
    assume(not once.lower().endswith(".ome"))
    assert slide_id_from_name(once + ".svs") == once


@given(IDS, st.sampled_from([".svs", ".SVS", ".tif", ".tiff", ".ome.tif", ".ndpi", ".scn"]))
def test_a_valid_stem_is_its_own_id(slide_id: str, suffix: str) -> None:
    assume(not slide_id.lower().endswith(".ome"))  # `x.ome.tif` has the stem `x`
    assert slide_id_from_name(slide_id + suffix) == slide_id


@pytest.mark.parametrize(
    ("name", "slide_id"),
    [
        ("C2.tif", "C2"),
        ("scan.ome.tiff", "scan"),
        ("TCGA-A1-A0SB-01Z-00-DX1.B34C267B.svs", "TCGA-A1-A0SB-01Z-00-DX1.B34C267B"),
        ("Fräulein Müller.svs", "Fraulein_Muller"),
        ("a b  c#[1].svs", "a_b_c_1_"),
        ("...hidden.svs", "hidden"),
        ("..", "slide"),
        ("", "slide"),
        ("组织切片.svs", "slide"),
        ("a..b.svs", "a.b"),
        ("../../etc/passwd", "etc_passwd"),
        ("_x.svs", "x"),
        ("x.txt", "x.txt"),
        ("x" * 300 + ".svs", "x" * 120),
    ],
)
def test_examples(name: str, slide_id: str) -> None:
    assert slide_id_from_name(name) == slide_id


@given(st.text(max_size=50))
def test_the_pattern_is_what_the_design_says(text: str) -> None:
    plain = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    valid = 0 < len(text) <= 120 and text[0] in plain and set(text) <= plain | set("_.-") and ".." not in text
    assert bool(SLIDE_ID.fullmatch(text)) == valid
