"""A fitted predictor with what it was fitted to: its predictions, its file, and how far a tile is from what it knows."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import FeatureError, WeightsError, describe
from stpath_assets.prediction.annotated import to_anndata
from stpath_assets.prediction.predictors.base import Matrix, Predictor
from stpath_assets.prediction.predictors.linear import Linear, Mean, ThroughDepth
from stpath_assets.prediction.predictors.neighbours import Neighbours
from stpath_assets.storage import atomic_file

if TYPE_CHECKING:
    import anndata

    from stpath_assets.features import Features

VERSION = 2
_TYPES: dict[str, Any] = {"ridge": Linear, "knn": Neighbours, "depth_only": ThroughDepth, "mean": Mean}
NEAREST = 5
"""Training tiles to which the distance of a tile is measured."""
AXES = 20
"""Principal axes of the training tiles in which distances are measured."""


@dataclass(frozen=True)
class About:
    """What a predictor is: `kind` of `KINDS`, a name of the user's, the genes and their scale, the encoder whose features it
    takes, and the slides it was fitted to, with their patients ("" if unknown).
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

    def share_of_copies(self, features: Matrix) -> float:
        """Return the share of tiles (N, D) that have a training tile within a tenth of the typical distance."""
        there = ((features - self.mean) / self.spread @ self.axes).astype(np.float32)
        return float((_nearest(there, self.tiles, 1)[:, 0] < 0.1 * self.typical).mean())


def _distances(some: Matrix, tiles: Matrix, skip: int = 0) -> npt.NDArray[np.float64]:
    """Return the mean distance to the nearest tiles, without the first `skip` of them."""
    found = _nearest(some, tiles, NEAREST + skip)
    return found[:, min(skip, found.shape[1] - 1) :].mean(axis=1)


def _nearest(some: Matrix, tiles: Matrix, k: int) -> npt.NDArray[np.float64]:
    """Return the distances of each to the k nearest tiles, nearest first."""
    from sklearn.neighbors import NearestNeighbors

    # In double precision: distances come from products, and near copies would drown in float32's rounding.
    found = NearestNeighbors(n_neighbors=min(k, len(tiles)), algorithm="brute").fit(tiles.astype(np.float64))
    return np.asarray(found.kneighbors(some.astype(np.float64))[0])


@dataclass(frozen=True)
class Reference:
    """A fitted predictor with what it was fitted to. `baselines` are simpler ones, by kind, fitted to the same."""

    about: About
    predictor: Predictor
    space: Space = field(repr=False)
    baselines: dict[str, Predictor] = field(default_factory=dict, repr=False)

    def predict(self, features: "Features", *, allow_trained: bool = False) -> "anndata.AnnData":
        """Predict a slide's tiles, in the form of `predict_expression`: X is on `about.scale`, and obs has
        `distance_to_training`, 1 for tiles as near to the training tiles as these are to each other.

        Raises `FeatureError` for features of another encoder, and for a slide that it was fitted to unless `allow_trained`:
        such a score would say nothing.
        """
        about = self.about
        self.require_encoder(features)
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

    def require_encoder(self, features: "Features") -> None:
        """Raise `FeatureError` for features of another encoder than it takes."""
        about = self.about
        if features.encoder != about.encoder or features.matrix.shape[1] != len(self.space.mean):
            raise FeatureError(
                f"{features.slide_id}: features are the {features.encoder} encoder's, but {about.model} takes {about.encoder}'s; "
                f"embed with {about.encoder}"
            )

    def save(self, path: str | Path) -> None:
        """Write it to a file (.npz), atomically. The file holds arrays and text, no code."""
        with atomic_file(Path(path)) as draft, draft.open("wb") as file:
            self.write(file)

    def write(self, file: IO[bytes]) -> None:
        """Write it to an open file."""
        fitted = {self.about.kind: self.predictor, **self.baselines}
        arrays = {f"space/{k}": v for k, v in asdict(self.space).items()} | {
            f"{kind}/{k}": v for kind, predictor in fitted.items() for k, v in predictor.arrays().items()
        }
        text = json.dumps({"version": VERSION, **asdict(self.about)}, ensure_ascii=False)
        np.savez(file, about=np.array(text), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read it from a file. Raises `WeightsError` for a file that is none, or of another version."""
        try:
            with open(path, "rb") as file:
                return cls.read(file, path)
        except OSError as e:
            raise WeightsError(f"{path}: cannot be read as a fitted predictor ({describe(e)}); fit it again") from e

    @classmethod
    def read(cls, opened: IO[bytes], path: str | Path) -> "Reference":
        """Read it from an open file; `path` is its name in messages. Raises as `load`."""
        try:
            if opened.read(2) != b"PK":  # NumPy would take it for a pickle, and advise to trust it
                raise ValueError("it is no .npz")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in file.files}
            if about.pop("version") != VERSION:
                raise ValueError("it is of another version")
            of: dict[str, dict[str, Any]] = {}
            for name, value in arrays.items():
                whose, _, rest = name.partition("/")
                of.setdefault(whose, {})[rest] = value
            space = of.pop("space")
            space["typical"] = float(space["typical"])
            fitted = {kind: _TYPES[kind](**of[kind]) for kind in of if kind in _TYPES}
            return cls(About(**about), fitted.pop(about["kind"]), Space(**space), fitted)
        except Exception as e:  # zipfile, JSON, missing names: whatever a damaged file raises
            raise WeightsError(f"{path}: cannot be read as a fitted predictor ({describe(e)}); fit it again") from e
