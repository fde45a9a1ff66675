"""Bins of Visium HD and cells of Xenium, summed over squares of a tile's size."""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from stpath_assets.errors import SpotsError
from stpath_assets.spots import read_spots, spots_fingerprint
from stpath_assets.spots.formats.binning import sum_squares

GENES = ["EPCAM", "VIM", "NegControl"]
KINDS = ["Gene Expression", "Gene Expression", "Negative Control Probe"]


def write_matrix(path: Path, names: list[str], counts: np.ndarray) -> None:
    stored = sparse.csr_matrix(counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        matrix = f.create_group("matrix")
        parts = {"data": stored.data, "indices": stored.indices, "indptr": stored.indptr, "shape": counts.shape[::-1]}
        for name, values in {**parts, "barcodes": np.array(names, "S")}.items():
            matrix[name] = values
        matrix["features/name"], matrix["features/feature_type"] = np.array(GENES, "S"), np.array(KINDS, "S")


@given(
    st.lists(st.tuples(st.floats(0, 999), st.floats(0, 999), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(1, 3),
)
def test_squares_hold_exactly_what_lies_in_them(points: list[tuple[float, float, int]], fewest: int) -> None:
    xy, counts = np.array([p[:2] for p in points]), sparse.csr_matrix(np.array([[p[2], 1] for p in points], np.int32))
    ids, centres, summed, lost = sum_squares(xy, counts, 100.0, fewest)
    expected: dict[tuple[int, int], list[int]] = {}
    for i, (x, y, _) in enumerate(points):
        expected.setdefault((int(y // 100), int(x // 100)), []).append(i)
    kept = {square: rows for square, rows in expected.items() if len(rows) >= fewest}
    assert ids == [f"r{row:05d}c{column:05d}" for row, column in sorted(kept)]
    assert centres.tolist() == [[column * 100 + 50.0, row * 100 + 50.0] for row, column in sorted(kept)]
    np.testing.assert_array_equal(
        summed.toarray(), np.array([counts[kept[s]].toarray().sum(axis=0) for s in sorted(kept)]).reshape(len(kept), 2)
    )
    assert lost == len(points) - sum(map(len, kept.values()))


# ---- Visium HD


@pytest.fixture
def hd(tmp_path: Path) -> Path:
    """Bins of 8 µm at 0.5 µm/px: a square of 112 µm is 14 x 14 bins, 224 px. One full square, and one with a few bins."""
    at = [(r, c) for r in range(14) for c in range(14)] + [(0, 14), (1, 15)]
    names = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in at]
    place = tmp_path / "outs" / "binned_outputs" / "square_008um"
    write_matrix(place / "filtered_feature_bc_matrix.h5", names, np.tile([[1, 2, 9]], (len(at), 1)).astype(np.int32))
    (place / "spatial").mkdir()
    table = pd.DataFrame({
        "barcode": names, "in_tissue": 1, "array_row": [r for r, _ in at], "array_col": [c for _, c in at],
        "pxl_row_in_fullres": [r * 16 + 8.0 for r, _ in at], "pxl_col_in_fullres": [c * 16 + 8.0 for _, c in at],
    })  # fmt: skip
    table.to_parquet(place / "spatial" / "tissue_positions.parquet")
    scale = {"microns_per_pixel": 0.5, "bin_size_um": 8.0, "spot_diameter_fullres": 16.0}
    (place / "spatial" / "scalefactors_json.json").write_text(json.dumps(scale))
    return tmp_path


@pytest.mark.parametrize("given_path", ["", "outs", "outs/binned_outputs", "outs/binned_outputs/square_008um"])
def test_bins_are_summed_over_squares_of_a_tile(hd: Path, given_path: str) -> None:
    spots = read_spots(hd / given_path)
    assert (spots.source, spots.spot_ids, spots.genes) == ("visium_hd", ["r00000c00000"], ["EPCAM", "VIM"])
    assert spots.xy_px.tolist() == [[112.0, 112.0]]
    assert spots.counts.toarray().tolist() == [[196, 392]]
    assert spots.spot_diameter_px == 224.0
    assert spots.notes == [
        "198 bins of 8 µm are summed over 1 squares of 112 µm",
        "left out: 2 spots in squares of which less than half are bins in tissue",
    ]


def test_bins_without_a_scale_are_refused(hd: Path) -> None:
    scale = hd / "outs" / "binned_outputs" / "square_008um" / "spatial" / "scalefactors_json.json"
    scale.write_text("{}")
    with pytest.raises(SpotsError, match="cannot be read as scale factors of Visium HD"):
        read_spots(hd)
    scale.unlink()
    with pytest.raises(SpotsError, match=r"scalefactors_json\.json of the bins are missing"):
        read_spots(hd)


# ---- Xenium

TURN = np.array([[0.0, 2.0, -40.0], [-2.0, 0.0, 1500.0], [0, 0, 1]])
"""Pixels of the scan to those of the morphology image: turned by a quarter, twice as coarse, shifted."""


@pytest.fixture
def xenium(tmp_path: Path) -> Path:
    """Four cells in one square of the scan, one far away. The scan has 0.425 µm/px, so a square has 263.5 px."""
    he_px = np.array([[100.0, 120.0], [110, 130], [90, 100], [50, 60], [600, 600]])
    um = (np.column_stack([he_px, np.ones(5)]) @ TURN.T)[:, :2] * 0.2125
    names = [f"cell{i}-1" for i in range(5)]
    outs = tmp_path / "outs"
    counts = np.array([[1, 0, 5], [2, 1, 5], [0, 3, 5], [4, 4, 5], [7, 7, 5]], np.int32)
    write_matrix(outs / "cell_feature_matrix.h5", names, counts)
    cells = pd.DataFrame({"cell_id": names, "x_centroid": um[:, 0], "y_centroid": um[:, 1]})
    cells.to_parquet(outs / "cells.parquet")
    (outs / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    np.savetxt(outs / "S1_he_imagealignment.csv", TURN, delimiter=",")
    return tmp_path


def test_cells_are_summed_over_squares_of_the_aligned_scan(xenium: Path) -> None:
    spots = read_spots(xenium)
    side = 112 / 0.425
    assert (spots.source, spots.spot_ids, spots.genes) == ("xenium", ["r00000c00000"], ["EPCAM", "VIM"])
    np.testing.assert_allclose(spots.xy_px, [[side / 2, side / 2]])
    assert spots.counts.toarray().tolist() == [[7, 8]]
    assert spots.spot_diameter_px == pytest.approx(side)
    assert spots.notes == [
        "5 cells are summed over 1 squares of 112 µm",
        "left out: 1 spot (cells) in squares with fewer than 3",
    ]


def test_cells_as_csv_are_the_same(xenium: Path) -> None:
    first, outs = read_spots(xenium), xenium / "outs"
    text = pd.read_parquet(outs / "cells.parquet").to_csv(index=False)
    (outs / "cells.csv.gz").write_bytes(gzip.compress(text.encode()))
    (outs / "cells.parquet").unlink()
    again = read_spots(outs)
    assert (again.counts != first.counts).nnz == 0
    np.testing.assert_allclose(again.xy_px, first.xy_px)


def test_another_alignment_is_another_fingerprint(xenium: Path) -> None:
    before = spots_fingerprint(xenium)
    np.savetxt(
        xenium / "outs" / "S1_he_imagealignment.csv", np.add(TURN, [[0, 0, 1], [0, 0, 0], [0, 0, 0]]), delimiter=","
    )
    assert spots_fingerprint(xenium) != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"0 alignments of an H&E scan, and one is needed"),
        ("1,0\n0,1\n", "not of 3 rows that end with 0, 0, 1"),
        ("0,0,1\n0,0,1\n0,0,1\n", "cannot be inverted"),
        ("a,b,c\n", "cannot be read as an alignment"),
    ],
)
def test_cells_whose_place_on_the_scan_is_not_known_are_refused(xenium: Path, text: str | None, words: str) -> None:
    alignment = xenium / "outs" / "S1_he_imagealignment.csv"
    alignment.unlink()
    if text is not None:
        alignment.write_text(text)
    with pytest.raises(SpotsError, match=words):
        read_spots(xenium)


def test_two_alignments_are_refused_by_name(xenium: Path) -> None:
    np.savetxt(xenium / "S2_he_imagealignment.csv", TURN, delimiter=",")
    with pytest.raises(SpotsError, match=r"2 alignments .*S1_he_imagealignment\.csv, S2_he_imagealignment\.csv"):
        read_spots(xenium)
