"""h5ad: where raw counts are looked for, and what is wrong with bad files."""

import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stpath_assets.errors import SpotsError
from stpath_assets.spots import read_spots, spots_fingerprint

COUNTS = np.array([[3, 0, 1], [0, 2, 0]])
LOGGED = np.log1p(COUNTS)
XY = np.array([[10.5, 20], [30, 40]])


def data(x=COUNTS, spots=("s2", "s1"), genes=("VIM", "ACTB", "EPCAM"), xy=XY) -> anndata.AnnData:
    made = anndata.AnnData(
        np.asarray(x, np.float32), obs=pd.DataFrame(index=list(spots)), var=pd.DataFrame(index=list(genes))
    )
    if xy is not None:
        made.obsm["spatial"] = xy
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.h5ad"


def refusal(path) -> str:
    with pytest.raises(SpotsError) as caught:
        read_spots(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_counts_in_x(path):
    data().write_h5ad(path)
    spots = read_spots(path)
    assert spots.source == "h5ad"
    assert spots.spot_ids == ["s2", "s1"]
    assert spots.genes == ["ACTB", "EPCAM", "VIM"]
    assert spots.counts.dtype == np.int32
    assert spots.counts.toarray().tolist() == [[0, 1, 3], [2, 0, 0]]
    assert spots.xy_px.tolist() == XY.tolist()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_the_counts_layer_comes_first(path, form):
    made = data(x=LOGGED)
    made.layers["counts"] = form(COUNTS)
    made.write_h5ad(path)
    assert read_spots(path).counts.toarray().tolist() == [[0, 1, 3], [2, 0, 0]]


def test_raw_with_more_genes_is_taken_before_x(path):
    made = data()
    made.raw = made
    made = made[:, ["VIM"]].copy()
    made.write_h5ad(path)
    assert read_spots(path).genes == ["ACTB", "EPCAM", "VIM"]


def test_raw_that_is_no_counts_is_passed_over(path):
    made = data()
    made.raw = data(x=LOGGED)
    made.write_h5ad(path)
    assert read_spots(path).counts.sum() == 6


def test_without_raw_counts_the_message_says_where_to_put_them(path):
    data(x=LOGGED).write_h5ad(path)
    message = refusal(path)
    assert "not raw counts in X: gene VIM has 1.38629 in spot s2" in message
    assert "layers['counts']" in message


def test_a_counts_layer_that_holds_none_is_not_replaced_by_x(path):
    made = data()
    made.layers["counts"] = LOGGED
    made.write_h5ad(path)
    assert "not raw counts in layers['counts']" in refusal(path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (data(xy=None), "has no positions; put the spots' level-0 pixels into obsm['spatial']"),
        (data(xy=XY[:, :1]), "one column"),
        (data(xy=np.array([[1, 2], [np.nan, 4]])), "1 of 2 spots with counts have no position, the first is s1"),
        (data(spots=("a", "a")), "spot a occurs twice"),
        (data(x=-COUNTS), "gene VIM has -3"),
        (data(x=COUNTS * np.nan), "gene VIM has nan"),
        (data(x=COUNTS * 0), "all counts in X are 0"),
        (data()[:0].copy(), "no spot or gene remains"),
        (data()[:, :0].copy(), "no spot or gene remains"),
        (anndata.AnnData(obs=pd.DataFrame(index=["a"]), obsm={"spatial": XY[:1]}), "holds no counts"),
    ],
)
def test_bad_data_are_refused_by_name(path, made, message):
    made.write_h5ad(path)
    assert message in refusal(path)


def test_further_columns_of_positions_are_not_read(path):
    data(xy=np.column_stack([XY, [7, 8]])).write_h5ad(path)
    assert read_spots(path).xy_px.tolist() == XY.tolist()


def test_of_features_with_one_symbol_that_with_most_counts_is_kept(path):
    data(x=[[1, 0, 1], [0, 2, 4]], genes=("TBCE", "TBCE", "A")).write_h5ad(path)
    spots = read_spots(path)
    assert spots.genes == ["A", "TBCE"]
    assert spots.counts.toarray().tolist() == [[1, 0], [4, 2]]
    assert spots.notes == ["symbols of several features, of which the one with most counts is kept: 1 (TBCE)"]


def test_spots_not_in_tissue_are_left_out(path):
    made = data()
    made.obs["in_tissue"] = [0, 1]
    made.write_h5ad(path)
    spots = read_spots(path)
    assert spots.spot_ids == ["s1"]
    assert spots.counts.toarray().tolist() == [[2, 0, 0]]
    assert spots.notes == ["left out: 1 spot not in tissue"]


def test_genes_named_by_ensembl_id_are_noted(path):
    data(genes=("ENSG00000026025", "ENSG00000075624.17", "ENSMUSG00000045394")).write_h5ad(path)
    assert any("Ensembl id" in note for note in read_spots(path).notes)


def test_damaged_files_are_refused(path):
    data().write_h5ad(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not hdf5 at all"):
        path.write_bytes(damaged)
        assert "cannot be read as h5ad" in refusal(path)


def test_fingerprint_follows_the_content(path):
    data().write_h5ad(path)
    before = spots_fingerprint(path)
    data(x=COUNTS + 1).write_h5ad(path)
    assert spots_fingerprint(path) != before


@pytest.mark.parametrize("said", [["1", "0"], ["True", "False"], [1.0, 0.0], [True, False], ["yes", "no"]])
def test_in_tissue_may_be_text(path, said):
    made = data()
    made.obs["in_tissue"] = said
    made.write_h5ad(path)
    assert read_spots(path).spot_ids == ["s2"]


def test_in_tissue_that_means_neither_is_refused(path):
    made = data()
    made.obs["in_tissue"] = ["1", "perhaps"]
    made.write_h5ad(path)
    assert "obs['in_tissue'] has 'perhaps'; use 1 and 0" in refusal(path)


@pytest.mark.parametrize("column", ["feature_name", "gene_symbols"])
def test_a_column_has_the_symbols_of_ensembl_ids(path, column):
    made = data(genes=("ENSG00000026025.16", "ENSG00000075624", "EPCAM"))
    made.var[column] = ["VIM", "", "WRONG"]
    made.write_h5ad(path)
    assert read_spots(path).genes == ["ENSG00000075624", "EPCAM", "VIM"], "what is a symbol already stays"


def external(file, tmp_path):
    with h5py.File(tmp_path / "elsewhere.h5", "w") as other:
        other["secret"] = [1, 2]
    file["obs/more"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "secret")


def raw_external(file, tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"0123456789abcdef")
    file.create_dataset("obs/more", (2,), "i8", external=[(str(tmp_path / "secret.bin"), 0, 16)])


def virtual(file, tmp_path):
    layout = h5py.VirtualLayout((2,), "i8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "elsewhere.h5"), "secret", shape=(2,))
    file.create_virtual_dataset("obs/more", layout)


@pytest.mark.parametrize("link", [external, raw_external, virtual])
def test_data_in_another_file_are_refused(path, tmp_path, link):
    data().write_h5ad(path)
    with h5py.File(path, "a") as file:
        link(file, tmp_path)
    assert "its /obs/more lies in another file, which is refused" in refusal(path)


# ---- SpatialData


def write_store(folder, made, name="table"):
    (folder / "s.zarr" / "tables").mkdir(parents=True, exist_ok=True)
    made.write_zarr(folder / "s.zarr" / "tables" / name)
    return folder / "s.zarr"


def test_the_table_of_a_spatialdata_store_is_read_as_an_h5ad(tmp_path):
    data().write_h5ad(tmp_path / "s.h5ad")
    store, expected = write_store(tmp_path, data()), read_spots(tmp_path / "s.h5ad")
    spots = read_spots(store)
    assert spots.source == "spatialdata"
    assert (spots.spot_ids, spots.genes) == (expected.spot_ids, expected.genes)
    assert (spots.counts != expected.counts).nnz == 0
    assert spots.xy_px.tolist() == expected.xy_px.tolist()
    before = spots_fingerprint(store)
    shutil.rmtree(store)
    write_store(tmp_path, data(x=COUNTS + 1))
    assert spots_fingerprint(store) != before


def test_a_store_with_other_than_one_table_is_refused(tmp_path):
    store = write_store(tmp_path, data(), "a")
    write_store(tmp_path, data(), "b")
    assert "has 2 tables (a, b), and one is needed" in refusal(store)
    shutil.rmtree(store / "tables")
    assert "has 0 tables, and one is needed" in refusal(store)


def test_a_store_without_positions_is_refused(tmp_path):
    assert "has no positions" in refusal(write_store(tmp_path, data(xy=None)))


def test_links_in_a_store_are_refused(tmp_path):
    store = write_store(tmp_path, data())
    (tmp_path / "secret").write_text("x")
    (store / "tables" / "table" / "more").symlink_to(tmp_path / "secret")
    with pytest.raises(SpotsError, match=r"more: is a link, which is refused"):
        read_spots(store)
