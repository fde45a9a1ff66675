"""Predicts expression from features: as an AnnData in a notebook, or as a stored part in a data root.

This module decides which weights belong to which features: the published model to GigaPath's, the demo weights to the demo
descriptor's. The network is in `stpath`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stpath_assets import weights
from stpath_assets.errors import FeatureError, VocabularyError, WeightsError
from stpath_assets.features import Features, read_features
from stpath_assets.prediction.annotated import to_anndata
from stpath_assets.prediction.context import Context
from stpath_assets.prediction.panels import read_panel
from stpath_assets.progress import track
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.by_gene import ByGene
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME
from stpath_assets.tables import GIGAPATH_FEATURES, STPATH_PREDICTIONS
from stpath_assets.tiles import require_current_grid
from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import Unknown, Vocabulary
from stpath_assets.weights import HubFile, hashes

if TYPE_CHECKING:
    import anndata

    from stpath_assets.prediction.stpath import Dtype, STPath

CODE_VERSION = "1"
"""Raised when the same features and weights give other numbers."""

_STORED_PROVENANCE = ("stpath_weights_sha256", "vocabulary_sha256", "organ", "tech", "genes", "dtype")

DEMO_WEIGHTS = Path(__file__).parents[1] / "demo" / "weights" / "stfm-demo.pth"
DEMO_VOCABULARY = DEMO_WEIGHTS.with_name("symbol2ensembl-demo.json")


_PUBLISHED = weights.STPATH


@dataclass(frozen=True)
class ModelChoice:
    """STPath weights that are chosen but not loaded. `name` is the model's name in tables: `stpath` or `stpath-demo`."""

    name: str
    weights: Path | None
    vocabulary: Path | None
    device: str = "auto"
    dtype: "Dtype" = "float32"
    store_as: str = "float32"
    published: HubFile = _PUBLISHED

    @classmethod
    def for_encoder(cls, encoder: str, settings: Settings) -> "ModelChoice":
        """Return the weights for an encoder's features: the demo's for the demo descriptor, else those of the settings."""
        if encoder == "demo":
            return cls("stpath-demo", DEMO_WEIGHTS, DEMO_VOCABULARY, settings.device, settings.dtype, settings.store_as)
        published = replace(weights.STPATH, revision=settings.stpath_revision, sha256=settings.weights_sha256)
        return cls(
            "stpath",
            settings.weights,
            settings.vocabulary,
            settings.device,
            settings.dtype,
            settings.store_as,
            published,
        )

    @property
    def takes(self) -> str:
        """The encoder whose features these weights were trained on."""
        return "demo" if self.name == "stpath-demo" else "gigapath"

    def load(self) -> "STPath":
        """Return the model. It stays loaded for the life of the process."""
        if self.vocabulary is None:
            raise _no_vocabulary()
        path = weights.locate(self.weights, self.published)
        mtimes = path.stat().st_mtime_ns, _mtime(self.vocabulary)
        return _load(path, self.vocabulary, weights.choose_device(self.device), self.dtype, mtimes)

    def load_vocabulary(self) -> Vocabulary:
        """Return the vocabulary alone, to look up genes before any work is done."""
        return Vocabulary.load(self.vocabulary) if self.vocabulary is not None else self.load().vocabulary

    def panel(self, genes: str) -> list[str] | None:
        """Return the genes of a setting, None for all; see `panels.read_panel`."""
        return read_panel(genes, self.load_vocabulary)

    def facts(self) -> dict[str, str]:
        """Return what predictions depend on besides features, organ, technology and genes, by the names of fingerprints.

        This is the model's provenance (`STPath.provenance`) without the device. Devices change numbers by about 1e-6, less than a
        user could see, and a busy GPU should not cause a new prediction. Does not load the model.
        """
        if self.vocabulary is None:
            raise _no_vocabulary()
        return {
            "model": self.name,
            "stpath_weights_sha256": hashes.sha256_of(weights.locate(self.weights, self.published)),
            "vocabulary_sha256": hashes.sha256_of(self.vocabulary),
            "dtype": self.dtype,
            # Named only where it is not the default, so that predictions of earlier versions stay current.
            **({} if self.store_as == "float32" else {"store_as": self.store_as}),
        }

    def extend(self, features: Fingerprint, row: Registered, genes: Sequence[str] | None) -> Fingerprint:
        """Return the fingerprint of predictions from features. `genes` None is all."""
        return extend(features, row, genes, self.facts())


def extend(
    features: Fingerprint, row: Registered, genes: Sequence[str] | None, facts: Mapping[str, str]
) -> Fingerprint:
    """Return the fingerprint of predictions from features by a model with these facts. `genes` None is all."""
    return features.extend(
        STPATH_PREDICTIONS.name,
        CODE_VERSION,
        **facts,
        organ=tokens.organ(row.organ),
        tech=tokens.tech(row.tech),
        genes=None if genes is None else sorted(genes),
    )


def _no_vocabulary() -> WeightsError:
    return WeightsError(
        "STPath's vocabulary is not in its weights repository: take utils_data/symbol2ensembl.json from the STPath "
        "repository (Graph-and-Geometric-Learning/STPath) and set STPATH_VOCABULARY to its path"
    )


@lru_cache(maxsize=2)
def _load(path: Path, vocabulary: Path, device: str, dtype: "Dtype", _mtimes: tuple[int, ...]) -> "STPath":
    from stpath_assets.prediction.stpath import STPath

    return STPath.load(path, vocabulary, device, dtype)


def _mtime(path: Path) -> int:
    # Loading reports a missing file.
    return path.stat().st_mtime_ns if path.is_file() else 0


def predict_expression(
    features: Features,
    organ: str | None = None,
    tech: str | None = None,
    genes: Sequence[str] | None = None,
    *,
    context: Context | None = None,
    unknown: Unknown = "error",
    model: ModelChoice | None = None,
) -> "anndata.AnnData":
    """Predict log1p expression of a slide's tiles.

    `genes` None is every gene of the model. `context` holds measured counts of some of the tiles. `model` None takes weights,
    vocabulary, device and dtype from the settings (`stpath_assets.settings()` shows them). Returns an AnnData: X (N, genes)
    float32 log1p, var_names the symbols as asked, obs `tile_id` and `library_id`, obsm['spatial'] (N, 2) tile centres in
    level-0 pixels, uns['histo'] the provenance (`STPath.provenance`, and the scale and encoder of the features); the rest is in
    `annotated.to_anndata`. Raises
    `VocabularyError`, `WeightsError`, or `FeatureError` if the weights take other features.
    """
    choice = model or ModelChoice.for_encoder(features.encoder, load_settings())
    _check_encoder(choice, features)
    loaded = choice.load()
    names, _ = loaded.vocabulary.select(genes, unknown)
    x = loaded.predict(features.matrix, features.centers_px, organ, tech, names, context, tile_ids=features.tile_ids)
    asked = None if genes is None else names
    return to_anndata(features, names, x, choice.name, loaded.provenance(organ, tech, asked), loaded.vocabulary)


def store_prediction(store: Store, row: Registered, choice: ModelChoice, genes: Sequence[str] | None) -> Outcome:
    """Bring a registered slide's `stpath_predictions` up to date with its stored features; `genes` None is all genes."""
    fingerprint = choice.extend(store.require(GIGAPATH_FEATURES.name, row.slide_id), row, genes)
    if store.is_current(STPATH_PREDICTIONS.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    features = read_features(store, row.slide_id)
    tile_ids = {"tile_id": np.array(features.tile_ids, object)}
    blocks = round_blocks(_predict_by_gene(choice, features, row, genes), choice.store_as)
    store.write_by_gene(STPATH_PREDICTIONS.name, row.slide_id, tile_ids, blocks, fingerprint, model=choice.name)
    return Outcome(fingerprint, True)


def round_blocks(
    blocks: Iterable[tuple[Sequence[str], npt.NDArray[np.float32]]], store_as: str
) -> Iterator[tuple[Sequence[str], npt.NDArray[np.float32]]]:
    """Yield blocks of genes with their values as they are stored. As float16, a value is rounded to 11 bits, to 0.05 % of itself.

    The column stays float32: the lower bits are zero, which the file's encoding stores in next to nothing.
    """
    for genes, values in blocks:
        yield genes, values if store_as == "float32" else values.astype(np.float16).astype(np.float32)


def _predict_by_gene(
    choice: ModelChoice, features: Features, row: Registered, genes: Sequence[str] | None
) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
    """Predict some genes at a time, in sorted order, with a progress bar. Checks and loading happen at the call."""
    _check_encoder(choice, features)
    model = choice.load()
    names = sorted(model.vocabulary.select(genes)[0])
    blocks = model.predict_blocks(
        features.matrix, features.centers_px, row.organ, row.tech, names, tile_ids=features.tile_ids
    )
    return track(blocks, f"{row.slide_id}: prediction", len(names), lambda b: len(b[0]))


def read_prediction(
    store: Store, slide_id: str, genes: Sequence[str] | None = None, vocabulary: Vocabulary | None = None
) -> "anndata.AnnData":
    """Read a slide's stored prediction by STPath, in the form that `predict_expression` returns.

    `genes` are those to read, in this order; None is all, as they are stored. `vocabulary` gives their Ensembl ids if it is the
    one that the prediction was made with. Raises `StorageError` if there is none, `FeatureError` if the tiles were made since,
    `VocabularyError` for genes that were not predicted.
    """
    part, features = store.read_by_gene(STPATH_PREDICTIONS.name, slide_id, genes), read_features(store, slide_id)
    same = part.keys["tile_id"].tolist() == features.tile_ids
    stored = require_current_grid(store, slide_id, STPATH_PREDICTIONS.name, same)
    facts = {k: stored.facts[k] for k in _STORED_PROVENANCE}
    names, x = in_order(slide_id, part, genes)
    known = vocabulary if vocabulary is not None and vocabulary.sha256 == facts["vocabulary_sha256"] else None
    return to_anndata(features, names, x, str(stored.facts["model"]), facts, known)


def in_order(slide_id: str, part: ByGene, genes: Sequence[str] | None) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Return genes and values (N, genes) of a part in the order asked for. Raises `VocabularyError` if one is not there."""
    if genes is None:
        return list(part.genes), np.ascontiguousarray(part.values)
    at = {gene: i for i, gene in enumerate(part.genes)}
    if missing := [gene for gene in genes if gene not in at]:
        raise VocabularyError(
            f"{slide_id}: {', '.join(missing[:10])}: not among its predicted genes; run it with them first"
        )
    return list(genes), np.ascontiguousarray(part.values[:, [at[gene] for gene in genes]])


def varies(store: Store, slide_id: str) -> tuple[int, bool]:
    """Return the number of stored genes, and whether any differs between tiles (True if there is a single tile)."""
    rows = store.rows(
        "select count(*), bool_or(len(expression_log1p) = 1 or list_min(expression_log1p) < list_max(expression_log1p)) "
        f"from {NAME}.parts.{STPATH_PREDICTIONS.name} where gene is not null and slide_id = ?",
        [slide_id],
    )
    return int(rows[0][0]), bool(rows[0][1])


def _check_encoder(choice: ModelChoice, features: Features) -> None:
    if features.encoder != choice.takes:
        raise FeatureError(
            f"{features.slide_id}: features are the {features.encoder} encoder's, but {choice.name} takes {choice.takes}'s; "
            f"embed with {choice.takes}"
        )
