"""Manifests and sidecars: what they say of scans, and how a wrong one is told."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.errors import ManifestError
from stpath_assets.ingestion import Known, read_manifest, read_sidecar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.svs", "b.svs", "spots.h5ad"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def manifest(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "slides.csv").write_bytes(text.encode(encoding))
    return folder / "slides.csv"


def test_a_manifest_says_what_is_known_of_each_scan(folder: Path) -> None:
    read = read_manifest(
        manifest(
            folder,
            "file,slide_id,patient_id,cohort,organ,tech,mpp,spots,genes,stain\n"
            "a.svs,A,17,trial,breast,visium,0.25,spots.h5ad,\"EPCAM,CD74\",H&E\n"
            "\n"
            "b.svs,,,,,,\"0.5,0.25\",,,\n",
        )
    )  # fmt: skip
    assert read.problems == []
    a, b = read.entries
    assert a.scan == str(folder / "a.svs")
    assert a.known == Known(
        slide_id="A", patient_id="17", cohort="trial", organ="Breast", tech="Visium", mpp=0.25,
        spots=str(folder / "spots.h5ad"), genes="EPCAM,CD74", stain="H&E",
    )  # fmt: skip
    assert a.known.more == {"stain": "H&E"}
    assert b.known == Known(mpp=(0.5, 0.25))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files_of_spreadsheets_are_read(folder: Path, separator: str, encoding: str) -> None:
    text = separator.join(["file", "organ"]) + "\r\n" + separator.join(["a.svs", "Brain"]) + "\r\n"
    (entry,) = read_manifest(manifest(folder, text, encoding)).entries
    assert entry.known.organ == "Brain"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.svs,Brest,,", "organ: STPath has no organ token 'Brest'; did you mean Breast?"),
        (
            "a.svs,,half,",
            "mpp: give µm per pixel as a number greater than 0, X,Y if not square, `file` or `spots`, got 'half'",
        ),
        ("a.svs,,-1,", "mpp: give µm per pixel"),
        ("a.svs,,,none.h5ad", "none.h5ad does not exist"),
        ("c.svs,,,", "c.svs does not exist"),
        (",Breast,,", "file: is empty"),
        ("a.svs,Breast,,,more", "has 5 values for 4 columns"),
        ("b.svs,,,", "b.svs stands in row 2 as well"),
    ],
)
def test_a_wrong_row_is_told_with_file_row_and_column_and_costs_the_others_nothing(
    folder: Path, row: str, said: str
) -> None:
    path = manifest(folder, f"file,organ,mpp,spots\nb.svs,,,\n{row}\n")
    read = read_manifest(path)
    (problem,) = read.problems
    assert problem.startswith(f"{path}: row 3: ")
    assert said in problem
    assert "\n" not in problem
    assert [Path(e.scan).name for e in read.entries] == ["b.svs"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column `file`"),
        ("name,organ\na.svs,Breast\n", "has no column `file`; its first row is name, organ"),
        ("file,organ,organ\n", "has two columns 'organ'"),
        ('file\n"a.svs\n', "is not CSV"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_line(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ManifestError) as e:
        read_manifest(manifest(folder, text))
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_a_manifest_that_is_missing_or_no_text_is_one_line(folder: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(folder / "none.csv")
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        read_manifest(manifest(folder, "file\nä.svs\n", "latin-1"))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30), max_size=6))
def test_any_text_in_a_further_column_comes_back_as_it_is(values: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place), io.StringIO(newline="")
        rows = csv.writer(out)
        rows.writerow(["file", "note"])
        for n, value in enumerate(values):
            (folder / f"{n}.svs").touch()
            rows.writerow([f"{n}.svs", value])
        read = read_manifest(manifest(folder, out.getvalue()))
    assert read.problems == []
    assert [e.known.more.get("note", "") for e in read.entries] == [v.strip() for v in values]


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_a_sidecar_says_the_same_of_one_scan(folder: Path, suffix: str) -> None:
    said = {"organ": "Brain", "patient_id": 17, "spots": "spots.h5ad", "batch": 3}
    path = folder / f"a{suffix}"
    path.write_text(json.dumps(said))  # JSON is YAML as well
    known = read_sidecar(path)
    assert known == Known(organ="Brain", patient_id="17", spots=str(folder / "spots.h5ad"), batch=3)
    assert known.more == {"batch": "3"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("organ: Brest", "organ: STPath has no organ token 'Brest'"),
        ("organ: [1, 2", "cannot be read"),
        ("- a list", "must hold names and values"),
        ("slide_id: ../x", "slide_id: use letters"),
        ("spots: gone.h5ad", "gone.h5ad does not exist"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_wrong_sidecar_is_one_line(folder: Path, text: str, said: str) -> None:
    path = folder / "a.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError) as e:
        read_sidecar(path)
    assert said in str(e.value)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_an_empty_sidecar_says_nothing(folder: Path) -> None:
    (folder / "a.yaml").write_text("# later\n")
    assert read_sidecar(folder / "a.yaml") == Known()
