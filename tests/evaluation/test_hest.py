"""A task of HEST-Benchmark in its own folders: drawn samples, whose features decide some genes."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import stpath_assets as sa
from stpath_assets.errors import SettingsError, SpotsError
from stpath_assets.evaluation import hest
from stpath_assets.features import EncoderChoice

GENES = ["AA", "BB", "CC"]


def write_sample(root: Path, name: str, seed: int, n: int = 40) -> None:
    """Patches of one grey each; the first gene follows it. The expression has its spots in another order, and more genes."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(40, 220, n)
    barcodes = [f"{name}-{i}" for i in range(n)]
    for folder in ("patches", "adata"):
        (root / folder).mkdir(exist_ok=True)
    with h5py.File(root / "patches" / f"{name}.h5", "w") as file:
        noise = rng.integers(0, 20, (n, 224, 224, 3))
        file["img"] = (grey[:, None, None, None] + noise).astype(np.uint8)
        file["barcode"] = np.array(barcodes, "S")[:, None]
    rate = np.stack([grey / 4, np.full(n, 5.0), np.full(n, 5.0), np.full(n, 9.0)], axis=1)
    counts = pd.DataFrame(rng.poisson(rate), index=barcodes, columns=["AA", "BB", "CC", "other"])
    shuffled = counts.sample(frac=1, random_state=0)[["other", "CC", "AA", "BB"]]
    anndata.AnnData(shuffled.astype(np.float32)).write_h5ad(root / "adata" / f"{name}.h5ad")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    root = tmp_path / "IDC"
    (root / "splits").mkdir(parents=True)
    names = ["S1", "S2", "S3"]
    for i, name in enumerate(names):
        write_sample(root, name, i)
        for part, members in (("train", [n for n in names if n != name]), ("test", [name])):
            rows = [
                {"sample_id": m, "patches_path": f"patches/{m}.h5", "expr_path": f"adata/{m}.h5ad"} for m in members
            ]
            pd.DataFrame(rows).to_csv(root / "splits" / f"{part}_{i}.csv", index=False)
    (root / "var_50genes.json").write_text(json.dumps({"genes": GENES}))
    return root


def test_each_fold_is_scored_by_the_benchmarks_predictor_and_ours(task: Path) -> None:
    rows = sa.hest_bench(task, model="demo")
    assert len(rows) == 3 * 3 * 4
    assert set(rows["protocol"]) == {"hest_bench:raw_log1p"}
    assert set(rows["encoder"]) == {"demo"}
    of = rows.set_index(["fold", "model", "gene"])
    assert (rows["n_spots"] == 40).all()
    for fold in range(3):
        assert of.loc[(fold, "ridge", "AA"), "pearson_r"] > 0.5
        assert of.loc[(fold, "ridge_hest", "AA"), "pearson_r"] > 0.3
        assert np.isnan(of.loc[(fold, "mean", "AA"), "pearson_r"])
        # Without an intercept, its errors are larger; r does not see that.
        assert of.loc[(fold, "ridge_hest", "BB"), "mse"] > 3 * of.loc[(fold, "ridge", "BB"), "mse"]


def test_the_benchmarks_predictor_is_what_its_paper_says(task: Path) -> None:
    encoder = EncoderChoice("demo").load()
    x, y = {}, {}
    for name in ("S1", "S2", "S3"):
        with h5py.File(task / "patches" / f"{name}.h5") as file:
            x[name] = encoder.encode(file["img"][:]).astype(np.float64)
            barcodes = [b.decode() for b in file["barcode"][:, 0]]
        y[name] = np.log1p(anndata.read_h5ad(task / "adata" / f"{name}.h5ad")[barcodes, GENES].X.astype(np.float64))
    train, values = np.concatenate([x["S2"], x["S3"]]), np.concatenate([y["S2"], y["S3"]])
    scaler = StandardScaler().fit(train)
    pca = PCA(80).fit(scaler.transform(train))
    fitted = Ridge(alpha=100 / (80 * 3), fit_intercept=False).fit(pca.transform(scaler.transform(train)), values)
    predicted = fitted.predict(pca.transform(scaler.transform(x["S1"])))
    rows = sa.hest_bench(task, model="demo").set_index(["fold", "model", "gene"])["pearson_r"]
    for i, gene in enumerate(GENES):
        assert rows[0, "ridge_hest", gene] == pytest.approx(np.corrcoef(predicted[:, i], y["S1"][:, i])[0, 1], abs=1e-6)


def test_more_spots_than_axes_use_256(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hest, "AXES", 5)
    few = sa.hest_bench(task, model="demo")
    assert few["pearson_r"].notna().any()


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda t: (t / "var_50genes.json").write_text("{}"), SettingsError, r"var_50genes\.json: cannot be read"),
        (lambda t: [p.unlink() for p in (t / "splits").iterdir()], SettingsError, r"has no splits/train_0\.csv"),
        (
            lambda t: (t / "splits" / "test_0.csv").write_text("a,b\n1,2\n"),
            SettingsError,
            r"cannot be read as a split",
        ),
        (lambda t: (t / "patches" / "S2.h5").unlink(), SpotsError, r"S2\.h5: no such file; fetch the whole task"),
        (lambda t: (t / "patches" / "S2.h5").write_bytes(b"x"), SpotsError, r"S2\.h5: cannot be read"),
        (
            lambda t: (t / "var_50genes.json").write_text('{"genes": ["AA", "ZZ"]}'),
            SpotsError,
            r"was not measured for ZZ, which the task asks for",
        ),
        (
            lambda t: (t / "splits" / "test_0.csv").write_text((t / "splits" / "train_0.csv").read_text()),
            SettingsError,
            r"fold 0 has S2, S3 in training and test",
        ),
    ],
)
def test_what_is_no_task_is_said_in_one_line(task: Path, spoil, error: type[Exception], words: str) -> None:
    spoil(task)
    with pytest.raises(error, match=words) as caught:
        sa.hest_bench(task, model="demo")
    assert "\n" not in str(caught.value)
