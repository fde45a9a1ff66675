"""her2st tables: counts in rows named XxY, matched to the selection beside them; and what is wrong with bad ones."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.errors import SpotsError
from stpath_assets.spots import check_inside, read_spots, spots_fingerprint

COUNTS = ["\tVIM\tACTB\tEPCAM", "10x21\t0\t5\t1", "10x22\t2\t0\t0", "11x21\t0\t7\t300"]
SELECTION = [
    "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected",
    "11\t21\t11.1\t20.9\t1100.5\t2100\t1",
    "10\t21\t10.0\t21.0\t1000.25\t2101\t1",
    "10\t22\t10.0\t22.0\t1001\t2200\t1",
]


def write(folder: Path, counts: list[str], selection: list[str] | None) -> Path:
    path = folder / "S1_counts.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(counts).encode() + b"\n"))
    if selection is not None:
        (folder / "S1_selection.tsv").write_text("\n".join(selection) + "\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SpotsError) as caught:
        read_spots(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.parent) in message
    return message


def test_counts_are_matched_to_positions_and_genes_sorted(tmp_path):
    spots = read_spots(write(tmp_path, COUNTS, SELECTION))
    assert spots.source == "her2st"
    assert spots.spot_ids == ["10x21", "10x22", "11x21"]
    assert spots.genes == ["ACTB", "EPCAM", "VIM"]
    assert spots.counts.dtype == np.int32
    assert spots.counts.toarray().tolist() == [[5, 1, 0], [0, 0, 2], [7, 300, 0]]
    assert spots.xy_px.dtype == np.float64
    assert spots.xy_px.tolist() == [[1000.25, 2101], [1001, 2200], [1100.5, 2100]]
    assert spots.notes == []
    assert spots.spot_diameter_px is None


def test_plain_table_with_windows_line_ends_and_quotes(tmp_path):
    write(tmp_path, COUNTS, SELECTION)
    path = tmp_path / "S1_counts.tsv"
    rows = [re.sub(r"[A-Z]+|\d+x\d+", lambda m: f'"{m[0]}"', row) for row in COUNTS]
    path.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    spots = read_spots(path)
    assert spots.genes == ["ACTB", "EPCAM", "VIM"]
    assert spots.counts.sum() == 315


def test_selection_without_the_selected_column_selects_all(tmp_path):
    selection = [row.rpartition("\t")[0] for row in SELECTION]
    assert len(read_spots(write(tmp_path, COUNTS, selection)).spot_ids) == 3


def test_spots_that_only_one_file_has_are_left_out_with_a_note(tmp_path):
    selection = [*SELECTION[:-1], "30\t30\t30\t30\t3000\t3000\t1", "31\t30\t31\t30\t3100\t3000\t1"]
    spots = read_spots(write(tmp_path, COUNTS, selection))
    assert spots.spot_ids == ["10x21", "11x21"]
    assert spots.counts.toarray().tolist() == [[5, 1, 0], [7, 300, 0]]
    assert spots.notes == [
        "left out: 1 spot with counts but without a position",
        "left out: 2 spots of the selection but without counts",
    ]


def test_spots_not_selected_are_left_out_with_a_note(tmp_path):
    selection = [*SELECTION[:-1], SELECTION[-1][:-1] + "0"]
    spots = read_spots(write(tmp_path, COUNTS, selection))
    assert spots.spot_ids == ["10x21", "11x21"]
    assert spots.notes == ["left out: 1 spot with counts but not of the selection"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([*COUNTS, COUNTS[1]], "array position 10x21 occurs twice"),
        (["\tVIM\tVIM\tEPCAM", *COUNTS[1:]], "gene VIM occurs twice"),
        (["\tVIM\t\tEPCAM", *COUNTS[1:]], "has no symbol"),
        ([*COUNTS, "12x21\t0\t0.5\t1"], "not raw counts: gene ACTB has 0.5 in spot 12x21"),
        ([*COUNTS, "12x21\t0\t-1\t1"], "gene ACTB has -1"),
        ([*COUNTS, "12x21\tnan\t1\t1"], "gene VIM has nan"),
        ([*COUNTS, "12x21\tinf\t1\t1"], "gene VIM has inf"),
        ([*COUNTS, "12x21\t3000000000\t1\t1"], "gene VIM has 3e+09"),
        ([*COUNTS, "12x21\t0\t\t1"], "row '12x21': could not convert string ''"),
        ([*COUNTS, "12x21\t0\tx\t1"], "row '12x21': could not convert string 'x'"),
        ([*COUNTS, "12x21"], "row '12x21': no counts"),
        ([*COUNTS, "12x21\t0\t1"], "row 12x21 has 2 counts, not 3"),
        (["\tVIM\tACTB", *COUNTS[1:]], "3 cells in its header and 4 in a row"),
        ([*COUNTS, "AAAC-1\t0\t1\t1"], "row 'AAAC-1' is not an array position"),
        (COUNTS[:1], "is empty"),
        ([""], "is empty"),
        (["\tVIM", "10x21\t0", "10x22\t0"], "all counts are 0"),
        (["\tVIM", "90x90\t1"], "no spot or gene remains"),
    ],
)
def test_bad_counts_are_refused_by_name(tmp_path, counts, message):
    selection = [*SELECTION, "12\t21\t12\t21\t1200\t2100\t1"]
    assert message in refusal(write(tmp_path, counts, selection))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (None, "positions are missing; put S1_selection.tsv next to it"),
        ([*SELECTION, SELECTION[1]], "array position 11x21 occurs twice"),
        (["x\ty\tnew_x\tnew_y", "10\t21\t10\t21"], "has no column pixel_x"),
        (
            [*SELECTION[:-1], "10\t22\t10.0\t22.0\t\t2200\t1"],
            "S1_selection.tsv: 1 of 3 spots with counts have no position, the first is 10x22",
        ),
        ([*SELECTION[:-1], "10\t22\t10.0\t22.0\tleft\t2200\t1"], "numbers in column pixel_x"),
        ([*SELECTION[:-1], "10\t22\t10.0"], "cannot be read as a table of spots"),
        ([row[:-1] + "0" for row in SELECTION[1:]], "has no column x"),
        (SELECTION[:1], "no spot or gene remains"),
    ],
)
def test_bad_selections_are_refused_by_name(tmp_path, selection, message):
    assert message in refusal(write(tmp_path, COUNTS, selection))


def test_an_empty_selection_is_refused(tmp_path):
    path = write(tmp_path, COUNTS, SELECTION)
    (tmp_path / "S1_selection.tsv").write_bytes(b"")
    assert "S1_selection.tsv: cannot be read as a table of spots" in refusal(path)


def test_damaged_files_are_refused(tmp_path):
    path = write(tmp_path, COUNTS, SELECTION)
    whole = path.read_bytes()
    for damaged in (whole[:-12], whole[:5], b"\tVIM\n10x21\t1\n", gzip.compress(b"\xff\xfe\x00\x01" * 9)):
        path.write_bytes(damaged)
        assert "cannot be read as a table of counts" in refusal(path)


def test_missing_and_unknown_paths_are_refused(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "S1_counts.tsv.gz")
    for name in ("S1.tsv.gz", "S1_counts.csv", "S1.rds"):
        (tmp_path / name).write_bytes(b"")
        message = refusal(tmp_path / name)
        assert "unknown format" in message
        assert "_counts.tsv" in message
        assert ".h5ad" in message


def test_fingerprint_follows_content_of_both_files_and_not_their_place(tmp_path):
    path = write(tmp_path, COUNTS, SELECTION)
    before = spots_fingerprint(path)
    assert re.fullmatch("[0-9a-f]{64}", before)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("counts.tsv.gz", "selection.tsv"):
        (moved / f"renamed_{name}").write_bytes((tmp_path / f"S1_{name}").read_bytes())
    assert spots_fingerprint(moved / "renamed_counts.tsv.gz") == before
    (tmp_path / "S1_selection.tsv").write_text("\n".join(SELECTION[:-1]))
    changed = spots_fingerprint(path)
    write(tmp_path, COUNTS[:-1], SELECTION)
    assert len({before, changed, spots_fingerprint(path)}) == 3
    (tmp_path / "S1_selection.tsv").unlink()
    with pytest.raises(SpotsError, match="S1_selection"):
        spots_fingerprint(path)


def test_spots_outside_the_slide_are_refused_by_name(tmp_path):
    spots = read_spots(write(tmp_path, COUNTS, SELECTION))
    check_inside(spots, 1101, 2200, "S1")
    with pytest.raises(SpotsError, match=r"S1: 1 of 3 spots.*1101 x 2199 px.*10x22, at \(1001, 2200\)"):
        check_inside(spots, 1101, 2199, "S1")
    with pytest.raises(SpotsError, match=r"S1: 3 of 3 spots.*10x21, at \(1000\.25, 2101\)"):
        check_inside(spots, 1000, 9000, "S1")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("section", "shape", "size_px", "notes"),
    [
        ("C2", (187, 15706), (9274, 9911), []),
        ("C3", (180, 15821), (9270, 9936), ["left out: 2 spots of the selection but without counts"]),
    ],
)
def test_the_real_sections(shared, section, shape, size_px, notes):
    spots = read_spots(shared / "data" / "her2st" / f"{section}_counts.tsv.gz")
    assert spots.counts.shape == shape == (len(spots.spot_ids), len(spots.genes))
    assert spots.genes == sorted(set(spots.genes))
    assert {"ERBB2", "GNAS", "FASN", "CD74"} <= set(spots.genes)
    assert spots.notes == notes
    check_inside(spots, *size_px, section)
    # The pitch of the array is 200 µm, and of the scan 0.687 µm a pixel: neighbours lie about 291 px apart.
    x, y = np.array([list(map(int, i.split("x"))) for i in spots.spot_ids]).T
    at = {(int(a), int(b)): xy for a, b, xy in zip(x, y, spots.xy_px, strict=True)}
    steps = [np.linalg.norm(at[a + 1, b] - xy) for (a, b), xy in at.items() if (a + 1, b) in at]
    assert np.median(steps) == pytest.approx(200 / 0.687, rel=0.15)
