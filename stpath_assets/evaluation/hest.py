"""Runs a task of HEST-Benchmark (Jaume et al., NeurIPS 2024) in its own folders and by its own protocol, beside ours.

    scores = sa.hest_bench("hest_bench/IDC", model="gigapath")

A task's folder has `splits/train_0.csv`, `test_0.csv`, … (`sample_id`, `patches_path`, `expr_path`), `var_50genes.json`, `adata/`
and `patches/`. Its protocol, `hest_bench:raw_log1p`, is: standardized features on 256 principal axes, ridge regression without an
intercept and with the fixed penalty 100 / (axes × genes), log1p of raw counts, Pearson's r of each gene over all test spots of a
fold.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv as pacsv

from stpath_assets.errors import SettingsError, SpotsError, describe
from stpath_assets.evaluation.scores import correlate, score
from stpath_assets.features import EncoderChoice
from stpath_assets.prediction.predictors import KINDS, Training
from stpath_assets.progress import track
from stpath_assets.settings import load_settings
from stpath_assets.spots.formats.base import refuse_links

if TYPE_CHECKING:
    import pandas as pd

AXES = 256
PROTOCOL = "hest_bench:raw_log1p"
"""Of which the folds' splits, genes and predictor are the benchmark's."""

_COLUMNS = ("sample_id", "patches_path", "expr_path")

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Sample:
    """A sample's features (N, D), log1p counts (N, G) of the task's genes, and log1p of the spots' sums of counts (N,)."""

    features: npt.NDArray[np.float32]
    values: Matrix
    log_depth: Matrix


def hest_bench(folder: str | Path, model: str | EncoderChoice = "gigapath", batch_size: int = 64) -> "pd.DataFrame":
    """Score an encoder on a task of HEST-Benchmark.

    Returns a row for each fold, gene and predictor: `ridge_hest` is the benchmark's; `ridge`, `depth_only` and `mean` are ours,
    fitted to the same training samples (`prediction.predictors`). Columns fold, gene, model, encoder, protocol, n_spots,
    pearson_r, r_depth (of the spots' log depth alone), r2, mse. Raises `SettingsError` for a folder that is no task, `SpotsError`
    for samples that cannot be read or do not have its genes.
    """
    import pandas as pd

    root = Path(folder)
    genes, folds = _genes(root), list(_folds(root))
    choice = EncoderChoice.of(model, load_settings()) if isinstance(model, str) else model
    named = {(p, e): s for train, test in folds for s, p, e in (*train, *test)}
    samples = {
        key: _read(root, *key, genes, choice, batch_size) for key in track(named, f"{root.name}: samples", len(named))
    }
    tables = []
    for i, (train, test) in enumerate(folds):
        both = [[samples[p, e] for _, p, e in part] for part in (train, test)]
        if shared := {s for s, _, _ in train} & {s for s, _, _ in test}:
            raise SettingsError(
                f"{root}: fold {i} has {', '.join(sorted(shared))} in training and test; correct its splits"
            )
        tables += [_score(i, name, found, both[1], genes) for name, found in _predict(both[0], both[1], genes)]
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(encoder=choice.name, protocol=PROTOCOL)


def _genes(root: Path) -> list[str]:
    path = root / "var_50genes.json"
    try:
        genes = json.loads(path.read_text())["genes"]
        if not (isinstance(genes, list) and genes and all(isinstance(g, str) for g in genes)):
            raise ValueError("it has no list of genes")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise SettingsError(f"{path}: cannot be read ({describe(e)}); give a task's folder of HEST-Benchmark") from e
    return list(genes)


Fold = tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]


def _folds(root: Path) -> Iterator[Fold]:
    """Yield the samples of each fold, in training and test: id, path of patches, path of expression."""
    paths = sorted((root / "splits").glob("train_*.csv"), key=lambda p: (len(p.name), p.name))
    if not paths:
        raise SettingsError(f"{root}: has no splits/train_0.csv; give a task's folder of HEST-Benchmark")
    for path in paths:
        yield _split(path), _split(path.with_name(path.name.replace("train", "test")))


def _split(path: Path) -> list[tuple[str, str, str]]:
    try:
        table = pacsv.read_csv(path)
        return list(zip(*(map(str, table[name].to_pylist()) for name in _COLUMNS), strict=True))
    except Exception as e:  # pyarrow's errors, a missing column, a missing file
        raise SettingsError(f"{path}: cannot be read as a split with {', '.join(_COLUMNS)} ({describe(e)})") from e


def _read(
    root: Path, patches: str, expression: str, genes: list[str], choice: EncoderChoice, batch_size: int
) -> _Sample:
    """Read a sample: embed its patches, and take the counts of their barcodes."""
    import anndata
    import h5py

    for path in (root / patches, root / expression):
        if not path.is_file():
            raise SpotsError(f"{path}: no such file; fetch the whole task")
        refuse_links(path)
    try:
        with h5py.File(root / patches, "r") as file:
            barcodes = [b.decode() if isinstance(b, bytes) else str(b) for b in np.asarray(file["barcode"]).ravel()]
            encoder, images = choice.load(), file["img"]
            features = np.concatenate(
                [encoder.encode(np.asarray(images[i : i + batch_size])) for i in range(0, len(barcodes), batch_size)]
            )
        data = anndata.read_h5ad(root / expression)
        missing = [g for g in genes if g not in data.var_names]
        if missing:
            raise SpotsError(
                f"{root / expression}: was not measured for {', '.join(missing[:5])}, which the task asks for"
            )
        data = data[barcodes]
        counts = data[:, genes].X
        dense = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, np.float64)
        depth = np.asarray(data.X.sum(axis=1), np.float64).ravel()
    except SpotsError:
        raise
    except Exception as e:  # HDF5's, anndata's, a barcode that is not there
        raise SpotsError(f"{root / patches}: cannot be read with {expression} ({describe(e)}); fetch it again") from e
    return _Sample(features, np.log1p(dense), np.log1p(depth))


def _predict(train: list[_Sample], test: list[_Sample], genes: list[str]) -> Iterator[tuple[str, Matrix]]:
    """Yield what each predictor, fitted to the training samples, predicts for the spots of the test samples, (N, G)."""
    features, values, depth = (
        np.concatenate([getattr(s, n) for s in train]) for n in ("features", "values", "log_depth")
    )
    unseen = np.concatenate([s.features for s in test])
    yield "ridge_hest", _ridge_of_hest(features, values, unseen)
    training = Training(features, values, depth, genes)
    for kind in ("ridge", "depth_only", "mean"):
        yield kind, KINDS[kind](training).predict(unseen).astype(np.float64)


def _ridge_of_hest(features: npt.NDArray[np.float32], values: Matrix, unseen: npt.NDArray[np.float32]) -> Matrix:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    axes = min(AXES, *features.shape)
    onto = make_pipeline(StandardScaler(), PCA(axes, svd_solver="full")).fit(features.astype(np.float64))
    x = onto.transform(features.astype(np.float64))
    fitted = Ridge(alpha=100 / (axes * values.shape[1]), fit_intercept=False).fit(x, values)
    return np.asarray(fitted.predict(onto.transform(unseen.astype(np.float64))), np.float64)


def _score(fold: int, name: str, predicted: Matrix, test: list[_Sample], genes: list[str]) -> "pd.DataFrame":
    import pandas as pd

    measured, depth = np.concatenate([s.values for s in test]), np.concatenate([s.log_depth for s in test])
    numbers: dict[str, Any] = score(predicted, measured)
    of_depth = correlate(measured, depth[:, None])
    return pd.DataFrame(
        {"fold": fold, "gene": genes, "model": name, "n_spots": len(measured), **numbers, "r_depth": of_depth}
    )
