"""Panels by name: what each form means, and what a file that is none gets to hear."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from stpath_assets.errors import SettingsError, SpotsError
from stpath_assets.prediction import ModelChoice, Vocabulary
from stpath_assets.prediction.panels import absolute, most_variable, read_panel
from stpath_assets.settings import Settings
from stpath_assets.spots import Spots

DEMO = ModelChoice.for_encoder("demo", Settings())


def no_vocabulary() -> Vocabulary:
    raise AssertionError("nothing is to be chosen")


def spots(counts: np.ndarray, genes: list[str]) -> Spots:
    n = len(counts)
    return Spots(
        [f"s{i}" for i in range(n)], np.zeros((n, 2)), genes, sparse.csc_matrix(counts, dtype=np.int32), "her2st"
    )


def known(*genes: str) -> Vocabulary:
    return Vocabulary.of({g: f"ENSG{i:011d}" for i, g in enumerate(genes)})


@pytest.mark.parametrize(
    ("text", "panel"), [("all", None), (" ALL ", None), ("EPCAM", ["EPCAM"]), (" A, B,", ["A", "B"])]
)
def test_panels_without_a_file(text: str, panel: list[str] | None) -> None:
    assert read_panel(text, no_vocabulary) == panel


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "EPCAM\nERBB2\nCD68\n"),
        ("p.txt", "\ufeffEPCAM, ERBB2 # of interest\r\n# and\r\n\r\nCD68 EPCAM"),
        ("P.TXT", "EPCAM ERBB2 CD68"),
        ("p.json", json.dumps(["EPCAM", "ERBB2", "CD68"])),
        ("p.json", json.dumps({"genes": ["EPCAM", "ERBB2", "CD68"], "from": "HEST"})),
    ],
)
def test_files_of_genes(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_panel(str(path), no_vocabulary) == ["EPCAM", "ERBB2", "CD68"]
    assert read_panel(f"top2:{path}", no_vocabulary) == ["EPCAM", "ERBB2"]
    assert DEMO.panel(str(path)) == ["EPCAM", "ERBB2", "CD68"]


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ("{}/p.txt", None, r"p\.txt: cannot be read as a list of genes \(No such file"),
        ("{}/p.txt", b"\xff\xfe\x00", r"p\.txt: cannot be read .*not UTF-8"),
        ("{}/p.txt", b"# nothing\n", "names no gene"),
        ("{}/p.json", b"[", "is not JSON"),
        ("{}/p.json", b'{"panel": ["A"]}', r'must be a list of gene symbols or \{"genes"'),
        ("{}/p.json", b"[1]", "must be a list of gene symbols"),
        ("{}/p.json", b"[]", "names no gene"),
        ("top3:{}/p.json", b'["A", "B"]', "has 2 genes, not 3; ask for fewer"),
        ("top0:{}/p.json", b'["A", "B"]', "asks for no gene"),
        (" , ", None, "no gene in ','"),
    ],
)
def test_panels_that_are_none(tmp_path: Path, text: str, content: bytes | None, said: str) -> None:
    text = text.format(tmp_path)
    if content is not None:
        Path(text.partition(":")[2] or text).write_bytes(content)
    with pytest.raises(SettingsError, match=said) as e:
        read_panel(text, no_vocabulary)
    assert "\n" not in str(e.value)


def test_the_most_variable_genes_are_those_of_log1p_counts() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.uniform(0.5, 20, 8), (60, 8))
    genes = [f"G{i}" for i in range(8)]
    variance = np.log1p(counts).var(axis=0)
    expected = [genes[i] for i in np.argsort(-variance)]
    assert most_variable(spots(counts, genes), 8, known(*genes)) == expected
    assert most_variable(spots(counts, genes), 3, known(*genes)) == expected[:3]


def test_rare_and_unknown_genes_are_no_candidates() -> None:
    counts = np.zeros((100, 4))
    counts[:9, 0] = 5000  # the most variable, in 9 % of the spots
    counts[:10, 1] = 3
    counts[::2, 2] = 90  # unknown
    counts[::2, 3] = 1
    genes = ["RARE", "TENTH", "UNKNOWN", "COMMON"]
    some = known("RARE", "TENTH", "COMMON")
    assert most_variable(spots(counts, genes), 2, some) == ["TENTH", "COMMON"]
    with pytest.raises(
        SettingsError, match="only 2 genes are counted in 10 % of the spots and known to the weights, not 3"
    ):
        most_variable(spots(counts, genes), 3, some)


def test_ties_go_by_symbol_and_a_column_is_taken_once() -> None:
    counts = np.repeat(np.arange(20)[:, None], 3, axis=1)
    vocabulary = Vocabulary.of({"B": "ENSG1", "A": "ENSG2", "OLD_A": "ENSG2"})
    assert most_variable(spots(counts, ["B", "OLD_A", "A"]), 2, vocabulary) == ["A", "B"]


@pytest.mark.shared
def test_of_measured_expression_by_the_settings(shared: Path) -> None:
    counts = shared / "data" / "her2st" / "C2_counts.tsv.gz"
    panel = DEMO.panel(f"top50:{counts}")
    assert panel is not None
    assert len(set(panel)) == 50
    assert panel == DEMO.panel(f"TOP50: {counts}")
    assert panel[:9] == DEMO.panel(f"top9:{counts}")
    with pytest.raises(SettingsError, match=r"C2_counts\.tsv\.gz: only \d+ genes"):
        _ = DEMO.panel(f"top5000:{counts}")


def test_measured_expression_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpotsError, match="no such file"):
        read_panel(f"top50:{tmp_path}/nothing.h5ad", no_vocabulary)


@pytest.mark.parametrize("text", ["EPCAM,ERBB2", "all", " all "])
def test_a_panel_without_a_path_is_the_same_everywhere(text: str) -> None:
    assert absolute(text) == text.strip()


@pytest.mark.parametrize("text", ["mine.txt", "mine.JSON", "top50:mine.txt", "top5: her2st/a_counts.tsv.gz"])
def test_a_path_in_a_panel_does_not_depend_on_the_folder(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head, colon, name = text.rpartition(":")
    assert absolute(text) == f"{head}{colon}{tmp_path / name.strip()}"
    assert absolute(absolute(text)) == absolute(text)
