"""Fingerprints: equal facts give equal digests, whatever their order; any other fact gives another digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stpath_assets.errors import StorageError
from stpath_assets.storage.fingerprint import Fingerprint, sha256_of_file, start
from stpath_assets.tables import SCHEMA_VERSION

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
FACTS = st.dictionaries(st.text(max_size=6), VALUES, min_size=1, max_size=6)


@given(FACTS, st.randoms(use_true_random=False))
def test_the_order_of_facts_does_not_matter(facts: dict[str, Any], random: Any) -> None:
    items = list(facts.items())
    random.shuffle(items)
    assert Fingerprint(dict(items)).digest == Fingerprint(facts).digest


@given(FACTS, FACTS)
def test_the_text_is_canonical_json(facts: dict[str, Any], more: dict[str, Any]) -> None:
    """Digests that are stored were made by json.dumps; the text is put together from pieces."""
    more = {k: v for k, v in more.items() if k not in {*facts, "s_code"}}
    assume("s_code" not in facts)
    extended = Fingerprint(facts).extend("s", "1", **more)
    whole = json.dumps({**facts, **more, "s_code": "1"}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert extended.to_json() == Fingerprint(json.loads(whole)).to_json() == whole


@given(FACTS, st.data())
def test_another_value_of_any_fact_is_another_digest(facts: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(facts)))
    value = data.draw(VALUES)
    assume(json.dumps(value) != json.dumps(facts[name]))
    assert Fingerprint({**facts, name: value}).digest != Fingerprint(facts).digest


@given(FACTS, st.text(max_size=6), VALUES)
def test_one_fact_more_or_less_is_another_digest(facts: dict[str, Any], name: str, value: Any) -> None:
    assume(name not in facts)
    assert Fingerprint({**facts, name: value}).digest != Fingerprint(facts).digest


@given(FACTS)
def test_a_stored_fingerprint_comes_back_the_same(facts: dict[str, Any]) -> None:
    stored = Fingerprint(json.loads(Fingerprint(facts).to_json()))
    assert stored.digest == Fingerprint(facts).digest
    assert stored.extends(Fingerprint(facts))


def test_the_digest_is_the_sha256_of_canonical_json() -> None:
    assert Fingerprint({"b": 1, "a": "µm"}).digest == hashlib.sha256('{"a":"µm","b":1}'.encode()).hexdigest()


def test_a_fact_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _ = Fingerprint({"mpp": float("nan")}).digest


def test_the_schema_version_is_a_fact() -> None:
    assert start(slide_sha256="x").facts == {"slide_sha256": "x", "schema": SCHEMA_VERSION}


def test_a_stage_holds_the_facts_of_those_before_it() -> None:
    slide = start(slide_sha256="x", slide_mpp=0.5)
    tiles = slide.extend("tile_grids", "1", tile_px=224)
    features = tiles.extend("gigapath_features", "1", encoder="demo", genes=["A", "B"])
    assert features.extends(tiles)
    assert features.extends(slide)
    assert not tiles.extends(features)
    assert not features.extends(slide.extend("tile_grids", "1", tile_px=256))
    assert not features.extends(slide.extend("tile_grids", "2", tile_px=224))


def test_the_version_of_the_code_changes_the_digest() -> None:
    slide = start(slide_sha256="x")
    assert slide.extend("tile_grids", "1").digest != slide.extend("tile_grids", "2").digest
    assert slide.extend("tile_grids", "1").digest != slide.extend("gigapath_features", "1").digest


def test_a_fact_cannot_be_said_twice() -> None:
    with pytest.raises(ValueError, match="slide_mpp"):
        start(slide_mpp=0.5).extend("tile_grids", "1", slide_mpp=0.4)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"abc" * 500_000)
    assert sha256_of_file(file) == hashlib.sha256(b"abc" * 500_000).hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.bin: cannot be read"):
        sha256_of_file(tmp_path / "gone.bin")
