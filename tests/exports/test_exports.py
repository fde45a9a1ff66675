"""Exports: complete files that other tools read, or none."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stpath_assets.errors import StorageError
from stpath_assets.exports import write_h5ad


@pytest.fixture
def prediction() -> anndata.AnnData:
    obs = pd.DataFrame({"tile_id": ["t0", "t1"], "library_id": ["C2", "C2"]}, index=["t0", "t1"])
    return anndata.AnnData(
        X=np.array([[0.5, 1], [2, 3]], np.float32),
        obs=obs,
        var=pd.DataFrame(index=["EPCAM", "ERBB2"]),
        obsm={"spatial": np.array([[1.5, 2], [3, 4]])},
        uns={"histo": {"model": "stpath-demo", "organ": "<pad>", "mpp": 0.5}},
    )


def test_an_anndata_comes_back(prediction: anndata.AnnData, tmp_path: Path) -> None:
    path = write_h5ad(prediction, tmp_path / "new folder" / "C2.h5ad")
    back = anndata.read_h5ad(path)
    np.testing.assert_array_equal(back.X, prediction.X)
    np.testing.assert_array_equal(back.obsm["spatial"], prediction.obsm["spatial"])
    assert back.var_names.tolist() == ["EPCAM", "ERBB2"]
    assert back.obs["library_id"].tolist() == ["C2", "C2"]
    assert dict(back.uns["histo"]) == prediction.uns["histo"]
    assert [p.name for p in path.parent.iterdir()] == ["C2.h5ad"]


@pytest.mark.parametrize("name", ["C2", "C2.h5", "C2.csv", "h5ad"])
def test_another_suffix_is_refused(prediction: anndata.AnnData, tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match=r"ends in \.h5ad; name it so"):
        write_h5ad(prediction, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_the_old_file(prediction: anndata.AnnData, tmp_path: Path) -> None:
    path = write_h5ad(prediction, tmp_path / "C2.h5ad")
    before = path.read_bytes()
    prediction.uns["bad"] = object()
    with pytest.raises(Exception, match="object"):
        write_h5ad(prediction, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["C2.h5ad"]


def test_a_place_that_cannot_be_written_is_an_error(prediction: anndata.AnnData, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"C2\.h5ad: cannot be written"):
        write_h5ad(prediction, tmp_path / "file" / "C2.h5ad")
