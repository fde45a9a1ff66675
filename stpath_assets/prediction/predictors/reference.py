"""A fitted predictor with what it was fitted to: its predictions, its file, and how far a tile is from what it knows."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import FeatureError, WeightsError, describe
from stpath_assets.prediction.predict import to_anndata
from stpath_assets.prediction.predictors.base import Matrix, Predictor
from stpath_assets.prediction.predictors.linear import Linear
from stpath_assets.prediction.predictors.neighbours import Neighbours
from stpath_assets.storage import atomic_file

if TYPE_CHECKING:
    import anndata

    from stpath_assets.features import Features

VERSION = 1
NEAREST = 5
"""Training tiles to which the distance of a tile is measured."""
AXES = 20
"""Principal axes of the training tiles in which distances are measured."""


@dataclass(frozen=True)
class About:
    """What a predictor is: `kind` of `KINDS`, a name of the user's, the genes and their scale, the encoder whose features it
    takes, and the slides and patients it was fitted to.
    """

    kind: str
    name: str
    genes: list[str]
    scale: str
    encoder: str
    slides: list[str]
    patients: list[str]
    spots: int

    @property
    def model(self) -> str:
        """The name in tables: `ridge:NAME`."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Space:
    """Where the training tiles lie: mean and spread (D,) of each feature, principal axes (D, A), and the tiles (K, A) there.
    `typical` is the median distance of a training tile to its nearest others.
    """

    mean: Matrix
    spread: Matrix
    axes: Matrix
    tiles: Matrix
    typical: float

    @classmethod
    def of(cls, features: Matrix) -> "Space":
        """Measure training tiles (K, D)."""
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread = np.where(spread > 0, spread, 1).astype(np.float32)
        z = (features - mean) / spread
        axes = np.linalg.svd(z, full_matrices=False)[2][:AXES].T.astype(np.float32)
        tiles = (z @ axes).astype(np.float32)
        return cls(mean, spread, axes, tiles, float(np.median(_distances(tiles, tiles, skip=1))) or 1.0)

    def distance(self, features: Matrix) -> npt.NDArray[np.float32]:
        """Return how far tiles (N, D) are from the training tiles, (N,): 1 is as far as these are from each other."""
        there = ((features - self.mean) / self.spread @ self.axes).astype(np.float32)
        return (_distances(there, self.tiles) / self.typical).astype(np.float32)


def _distances(some: Matrix, tiles: Matrix, skip: int = 0) -> npt.NDArray[np.float64]:
    """Return the mean distance to the nearest tiles, without the first `skip` of them."""
    from scipy.spatial import cKDTree

    k = min(NEAREST + skip, len(tiles))
    found = np.asarray(cKDTree(tiles).query(some, k=k)[0]).reshape(len(some), -1)
    return found[:, min(skip, k - 1) :].mean(axis=1)


@dataclass(frozen=True)
class Reference:
    """A fitted predictor with what it was fitted to."""

    about: About
    predictor: Predictor
    space: Space = field(repr=False)

    def predict(self, features: "Features", *, allow_trained: bool = False) -> "anndata.AnnData":
        """Predict a slide's tiles, in the form of `predict_expression`: X is on `about.scale`, and obs has
        `distance_to_training`, 1 for tiles as near to the training tiles as these are to each other.

        Raises `FeatureError` for features of another encoder, and for a slide that it was fitted to unless `allow_trained`:
        such a score would say nothing.
        """
        about = self.about
        if features.encoder != about.encoder or features.matrix.shape[1] != len(self.space.mean):
            raise FeatureError(
                f"{features.slide_id}: features are the {features.encoder} encoder's, but {about.model} takes {about.encoder}'s; "
                f"embed with {about.encoder}"
            )
        if features.slide_id in about.slides and not allow_trained:
            raise FeatureError(
                f"{features.slide_id}: {about.model} was fitted to this slide, so its score would say nothing; "
                "predict another (in Python, allow_trained=True permits it)"
            )
        x = self.predictor.predict(features.matrix)
        facts = {"scale": about.scale, "slides": ",".join(about.slides), "spots": about.spots}
        data = to_anndata(features, about.genes, x, about.model, facts)
        data.uns["histo"]["method"] = about.kind
        data.obs["distance_to_training"] = self.space.distance(features.matrix)
        return data

    def save(self, path: str | Path) -> None:
        """Write it to a file (.npz), atomically. The file holds arrays and text, no code."""
        arrays = {f"space_{k}": v for k, v in asdict(self.space).items()} | {
            f"predictor_{k}": v for k, v in self.predictor.arrays().items()
        }
        text = json.dumps({"version": VERSION, **asdict(self.about)}, ensure_ascii=False)
        with atomic_file(Path(path)) as draft, draft.open("wb") as file:
            np.savez(file, about=np.array(text), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read it from a file. Raises `WeightsError` for a file that is none, or of another version."""
        try:
            with open(path, "rb") as opened:
                if opened.read(2) != b"PK":  # NumPy would take it for a pickle, and advise to trust it
                    raise ValueError("it is no .npz")
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in file.files}
            if about.pop("version") != VERSION:
                raise ValueError("it is of another version")
            of: dict[str, dict[str, Any]] = {"space": {}, "predictor": {}}
            for name, value in arrays.items():
                whose, _, rest = name.partition("_")
                if whose in of:
                    of[whose][rest] = value
            of["space"]["typical"] = float(of["space"]["typical"])
            kind: Any = Neighbours if about["kind"] == "knn" else Linear
            return cls(About(**about), kind(**of["predictor"]), Space(**of["space"]))
        except Exception as e:  # zipfile, JSON, missing names: whatever a damaged file raises
            raise WeightsError(f"{path}: cannot be read as a fitted predictor ({describe(e)}); fit it again") from e
