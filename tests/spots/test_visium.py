"""Visium folders as Space Ranger 1 to 3 write them: matrix as HDF5 or folder, positions in three forms."""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite

from stpath_assets.errors import SpotsError
from stpath_assets.spots import read_spots, spots_fingerprint

BARCODES = ["AAAC-1", "CCCG-1", "GGGT-1"]
SYMBOLS = ["VIM", "TBCE", "TBCE", "HASHTAG"]
KINDS = ["Gene Expression"] * 3 + ["Antibody Capture"]
COUNTS = np.array([[3, 0, 1, 9], [0, 2, 5, 9], [4, 0, 0, 9]], np.int32)  # barcodes, features
POSITIONS = pd.DataFrame(
    {
        "barcode": ["TTTT-1", *BARCODES],
        "in_tissue": [0, 1, 1, 1],
        "array_row": [0, 1, 2, 3],
        "array_col": [0, 1, 2, 3],
        "pxl_row_in_fullres": [5, 100, 200, 300],
        "pxl_col_in_fullres": [5, 11, 22, 33],
    }
)


def write_hdf5(outs: Path, kinds=KINDS, **changed) -> None:
    stored = sparse.csr_matrix(COUNTS)  # Space Ranger stores the transpose by column: the same three arrays
    parts = {"data": stored.data, "indices": stored.indices, "indptr": stored.indptr, "shape": COUNTS.shape[::-1]}
    outs.mkdir(parents=True, exist_ok=True)
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "w") as f:
        matrix = f.create_group("matrix")
        for name, values in {**parts, "barcodes": np.array(BARCODES, "S"), **changed}.items():
            matrix[name] = values
        matrix["features/name"] = np.array(SYMBOLS, "S")
        matrix["features/feature_type"] = np.array(kinds, "S")


def write_folder(outs: Path) -> Path:
    folder = outs / "filtered_feature_bc_matrix"
    folder.mkdir(parents=True)
    features = [f"ENSG{i:011}\t{s}\t{k}" for i, (s, k) in enumerate(zip(SYMBOLS, KINDS, strict=True))]
    for name, lines in (("barcodes", BARCODES), ("features", features)):
        (folder / f"{name}.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    with gzip.open(folder / "matrix.mtx.gz", "wb") as f:
        mmwrite(f, sparse.coo_matrix(COUNTS.T), field="integer")
    return folder


def write_positions(outs: Path, name: str = "tissue_positions.csv", table: pd.DataFrame = POSITIONS) -> Path:
    path = outs / "spatial" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, header="list" not in name)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SpotsError) as caught:
        read_spots(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("positions", ["tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet"])
@pytest.mark.parametrize("write_matrix", [write_hdf5, write_folder])
@pytest.mark.parametrize("inside", ["", "outs"])
def test_every_form_reads_the_same(tmp_path, write_matrix, positions, inside):
    write_matrix(tmp_path / inside)
    write_positions(tmp_path / inside, positions)
    spots = read_spots(tmp_path)
    assert spots.source == "visium"
    assert spots.spot_ids == BARCODES
    assert spots.xy_px.tolist() == [[11, 100], [22, 200], [33, 300]]  # x is the column, y the row
    assert spots.genes == ["TBCE", "VIM"]
    assert spots.counts.dtype == np.int32
    assert spots.counts.toarray().tolist() == [[1, 3], [5, 0], [0, 4]]
    assert spots.notes == ["symbols of several features, of which the one with most counts is kept: 1 (TBCE)"]
    assert spots.spot_diameter_px is None


def test_spot_diameter_is_that_of_the_full_resolution_image(tmp_path):
    write_hdf5(tmp_path)
    scale = write_positions(tmp_path).with_name("scalefactors_json.json")
    scale.write_text(json.dumps({"spot_diameter_fullres": 89.5, "tissue_hires_scalef": 0.17}))
    assert read_spots(tmp_path).spot_diameter_px == 89.5
    scale.write_text("{}")
    assert read_spots(tmp_path).spot_diameter_px is None
    for damaged in ("{", "[]", '{"spot_diameter_fullres": "wide"}'):
        scale.write_text(damaged)
        assert "cannot be read as JSON" in refusal(tmp_path)


def test_only_spots_in_tissue_with_a_position_are_read(tmp_path):
    write_hdf5(tmp_path)
    changed = POSITIONS.assign(in_tissue=[1, 1, 0, 1])[:3]
    write_positions(tmp_path, table=changed)
    spots = read_spots(tmp_path)
    assert spots.spot_ids == ["AAAC-1"]
    assert spots.notes[:3] == [
        "left out: 1 spot with counts but without a position",
        "left out: 1 spot with counts but not in tissue",
        "left out: 1 spot in tissue but without counts",
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (POSITIONS.drop(columns="pxl_row_in_fullres"), "has no column pxl_row_in_fullres"),
        (POSITIONS[["barcode"]], "has no column pxl_row_in_fullres"),
        (pd.concat([POSITIONS, POSITIONS[:1]]), "barcode TTTT-1 occurs twice"),
        (
            POSITIONS.assign(pxl_col_in_fullres=[1, None, 2, 3]),
            "tissue_positions.csv: 1 of 3 spots with counts have no position, the first is AAAC-1",
        ),
        (POSITIONS.assign(pxl_col_in_fullres="left"), "numbers in column pxl_col_in_fullres"),
        (POSITIONS.assign(in_tissue=0), "no spot or gene remains"),
    ],
)
def test_bad_positions_are_refused_by_name(tmp_path, table, message):
    write_hdf5(tmp_path)
    write_positions(tmp_path, table=table)
    assert message in refusal(tmp_path)


def test_positions_without_barcodes_are_refused(tmp_path):
    write_hdf5(tmp_path)
    write_positions(tmp_path, "tissue_positions.parquet", POSITIONS.drop(columns="barcode"))
    assert "has no column barcode" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": np.array([3, 1, 9, 2, 5, 9, 4, 9]) / 2}, "not raw counts: gene VIM has 1.5 in spot AAAC-1"),
        ({"data": -np.ones(8, int)}, "gene VIM has -1"),
        ({"kinds": ["Antibody Capture"] * 4}, "no feature of type Gene Expression"),
        ({"barcodes": np.array(["AAAC-1", "AAAC-1", "GGGT-1"], "S")}, "spot AAAC-1 occurs twice"),
        ({"barcodes": np.array(BARCODES[:2], "S")}, "cannot be read as a feature matrix"),
        ({"indices": np.full(8, 77)}, "cannot be read as a feature matrix"),
        ({"indptr": np.array([0, 1])}, "cannot be read as a feature matrix"),
        ({"indptr": np.array([0, 99, 99, 0])}, "cannot be read as a feature matrix"),  # ends the process if it passes
    ],
)
def test_bad_matrices_are_refused_by_name(tmp_path, changed, message):
    write_hdf5(tmp_path, **changed)
    write_positions(tmp_path)
    assert message in refusal(tmp_path)


def test_damaged_hdf5_is_refused(tmp_path):
    write_hdf5(tmp_path)
    write_positions(tmp_path)
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no hdf5"):
        path.write_bytes(damaged)
        assert "cannot be read as a feature matrix" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz"])
def test_damaged_or_missing_parts_of_the_matrix_folder_are_refused(tmp_path, name):
    path = write_folder(tmp_path) / name
    write_positions(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", gzip.compress(b"AAAC-1\n")):
        path.write_bytes(damaged)
        assert "cannot be read as a feature matrix" in refusal(tmp_path)
    path.unlink()
    assert "is not a Visium folder" in refusal(tmp_path)


def test_a_folder_without_positions_or_matrix_is_refused(tmp_path):
    assert "is not a Visium folder" in refusal(tmp_path)
    write_hdf5(tmp_path)
    assert "positions are missing; put spatial/tissue_positions.csv there" in refusal(tmp_path)


def test_fingerprint_follows_every_file_that_is_read_and_no_other(tmp_path):
    write_hdf5(tmp_path)
    positions = write_positions(tmp_path)
    seen = [spots_fingerprint(tmp_path)]
    (tmp_path / "web_summary.html").write_text("not read")
    assert spots_fingerprint(tmp_path) == seen[0]
    positions.with_name("scalefactors_json.json").write_text("{}")
    seen.append(spots_fingerprint(tmp_path))
    write_positions(tmp_path, table=POSITIONS.assign(array_row=7))
    seen.append(spots_fingerprint(tmp_path))
    write_hdf5(tmp_path, kinds=["Gene Expression"] * 4)
    seen.append(spots_fingerprint(tmp_path))
    assert len(set(seen)) == 4
