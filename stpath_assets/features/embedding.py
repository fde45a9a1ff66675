"""Embeds a slide's tiles, and stores them in `gigapath_features`.

The encoders are in `encoders`. Where they compute is in `local` and `serving`.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import FeatureError
from stpath_assets.features.encoders import EncoderChoice, extend, require_width
from stpath_assets.features.local import Embedder, LocalEmbedder
from stpath_assets.features.parts import Parts
from stpath_assets.progress import track
from stpath_assets.settings import Settings, load_settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.slides.scale import Mpp
from stpath_assets.storage import Outcome, Store, pictures
from stpath_assets.tables import FEATURE_DIM as DIM
from stpath_assets.tables import GIGAPATH_FEATURES, GIGAPATH_THROUGHPUT, TILE_GRIDS
from stpath_assets.tiles import Tiles, centers_of, require_current_grid

PIECE = 128
"""Tiles per finished piece. A killed run loses at most one piece: seconds of work on a GPU, minutes without."""


@dataclass(frozen=True, repr=False)
class Features:
    """Features of the tiles of one slide, in table order.

    `matrix` (N, 1536) float32; other encoders than GigaPath have their own width. `centers_px` (N, 2) float64 level-0 pixels.
    `slide_mpp` and `tile_mpp` in µm per pixel. `facts` is what they depend on besides the pixels (`EncoderChoice.facts`). `uri`
    and `given_mpp` open the scan again, for a picture of it; `uri` is empty if that is not known.
    """

    slide_id: str
    tile_ids: list[str]
    matrix: npt.NDArray[np.float32]
    centers_px: npt.NDArray[np.float64]
    slide_mpp: float
    tile_mpp: float
    encoder: str
    facts: dict[str, str] = field(default_factory=dict)
    uri: str = ""
    given_mpp: Mpp | None = None

    def __len__(self) -> int:
        return len(self.tile_ids)

    def __repr__(self) -> str:
        return f"<features of {self.slide_id}: {self.matrix.shape[0]} tiles × {self.matrix.shape[1]} by {self.encoder}>"

    def _repr_html_(self) -> str:
        facts = {
            "tiles": self.matrix.shape[0],
            "features": f"{self.matrix.shape[1]}, {self.matrix.dtype}",
            "encoder": " ".join([self.encoder, self.facts.get("encoder_precision", "")]).strip(),
            "scale": f"{self.tile_mpp:g} µm/px, of a scan at {self.slide_mpp:.4g}",
        }
        return pictures.card(f"features of {self.slide_id}", facts)

    def to_table(self) -> pa.Table:
        """Return the rows of `gigapath_features`."""
        n = len(self)
        require_width(self.slide_id, self.encoder, self.matrix.shape[1])
        feature = pa.FixedSizeListArray.from_arrays(pa.array(self.matrix.reshape(-1), pa.float32()), DIM)
        return pa.table(
            [pa.repeat(self.slide_id, n), pa.array(self.tile_ids), feature, pa.repeat(self.encoder, n)],
            schema=GIGAPATH_FEATURES.schema,
        )


def embedder_of(settings: Settings, choice: EncoderChoice | None = None) -> Embedder:
    """Return what computes features: this process, or the served encoder if the settings have an `encoder_url`.

    `choice` is the encoder, by default that of the settings.
    """
    choice = choice or EncoderChoice.of(settings.encoder, settings)
    if settings.encoder_url is None:
        return LocalEmbedder(choice)
    from stpath_assets.features.serving import served_embedder

    return served_embedder(settings, choice)


def embed(
    tiles: Tiles,
    model: str | EncoderChoice | Embedder = "gigapath",
    batch_size: int | None = None,
    *,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None = None,
    parts: Parts | None = None,
) -> Features:
    """Embed the tiles of a slide, in table order.

    `model` is `gigapath`, `demo`, `timm:` followed by a timm model name, or an `EncoderChoice` with its own weights file. For a
    name, the weights file, the precision and the served encoder come from the settings (`stpath_assets.settings()` shows them);
    without a weights file, GigaPath's is fetched from the hub. `batch_size` None is what suits the device. `parts` keeps
    finished pieces, and resumes from those of a killed run. Raises `WeightsError` if the weights are not available,
    `SlideError` if the scan cannot be read, `FeatureError` if a feature is not finite.
    """
    if isinstance(model, str):
        settings = load_settings(encoder_precision=precision)
        model = embedder_of(settings, EncoderChoice.of(model, settings, device))
    elif isinstance(model, EncoderChoice):
        model = LocalEmbedder(model)
    return _gather(tiles, model, batch_size, parts)


def _gather(tiles: Tiles, embedder: Embedder, batch_size: int | None, parts: Parts | None) -> Features:
    """Collect the features of all tiles from a stream of blocks."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    size = batch_size or embedder.batch_size
    kept = parts.read() if parts else None
    done = first = 0 if kept is None else len(kept)
    blocks = [] if kept is None else [kept]
    piece: list[npt.NDArray[np.float32]] = []
    began = time.perf_counter()
    stream = embedder.stream(tiles, done, size)
    for block in track(stream, f"{tiles.slide_id}: features", len(tiles), len, done):
        blocks.append(block)
        piece.append(block)
        done += len(block)
        if parts and done % parts.size == 0:
            parts.write(done - parts.size, np.concatenate(piece))
            piece = []
    embedder.meter.seconds, embedder.meter.resumed_tiles = time.perf_counter() - began, first
    embedder.meter.tiles = done - first
    matrix = np.concatenate(blocks)
    ids = tiles.tile_ids
    if len(matrix) != len(ids):
        raise FeatureError(f"{tiles.slide_id}: {embedder.name} gave {len(matrix)} features for {len(ids)} tiles")
    bad = [ids[i] for i in np.flatnonzero(~np.isfinite(matrix).all(axis=1))]
    if bad:
        raise FeatureError(
            f"{tiles.slide_id}: {embedder.name} gave features that are not finite for {len(bad)} tiles, "
            f"first {bad[0]}; check its weights"
        )
    return Features(
        tiles.slide_id, ids, matrix, tiles.centers_px, tiles.slide.mpp, tiles.mpp, embedder.name, embedder.facts(),
        tiles.slide.uri, tiles.slide.given_mpp,
    )  # fmt: skip


def store_features(
    store: Store, row: Registered, by: EncoderChoice | Embedder, batch_size: int | None = None
) -> Outcome:
    """Bring a registered slide's `gigapath_features` up to date with its stored tiles.

    Timing and memory go to `gigapath_throughput`. A feature file that was added with the slide is stored as it is.
    """
    if row.features_uri is not None:
        return _import(store, row, row.features_uri)
    embedder = LocalEmbedder(by) if isinstance(by, EncoderChoice) else by
    facts = embedder.facts()
    fingerprint = extend(store.require(TILE_GRIDS.name, row.slide_id), facts)
    if store.is_current(GIGAPATH_FEATURES.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    size = batch_size or embedder.batch_size
    # Whole batches per piece, so that a resumed run computes the same batches and the same bits.
    parts = Parts(store, row.slide_id, fingerprint.digest, size, -(-PIECE // size) * size)
    with row.open() as slide:
        features = _gather(Tiles(slide, store.read(TILE_GRIDS.name, row.slide_id)), embedder, size, parts)
    took = embedder.meter.to_table(row.slide_id, facts["encoder"], facts["encoder_precision"])
    with store.stage(row.slide_id, fingerprint) as stage:
        stage.write(GIGAPATH_FEATURES.name, features.to_table())
        stage.write(GIGAPATH_THROUGHPUT.name, took)
    parts.clear()
    return Outcome(fingerprint, True)


def _import(store: Store, row: Registered, path: str) -> Outcome:
    """Store the features of a file made elsewhere, for the tiles of the same file."""
    from stpath_assets.features import trident  # imported late: reads HDF5, not needed for embedding

    imported = trident.read(path, row)
    facts = imported.facts
    laid = store.require(TILE_GRIDS.name, row.slide_id)
    fingerprint = extend(laid, facts)
    if store.is_current(GIGAPATH_FEATURES.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False)
    tiles = store.read(TILE_GRIDS.name, row.slide_id)
    ids = tiles["tile_id"].to_pylist()
    # Compare places too: tiles of other tools' files are numbered, so different files have the same ids.
    if laid.facts.get("tile_coords_sha256") != imported.tiles.sha256 or ids != list(imported.tiles.tile_ids):
        raise FeatureError(
            f"{row.slide_id}: {path} was changed since its tiles were taken; run: stpath-assets run {row.slide_id}"
        )
    features = Features(
        row.slide_id, ids, imported.matrix, centers_of(tiles), row.mpp, imported.tiles.mpp, facts["encoder"], facts
    )
    with store.stage(row.slide_id, fingerprint) as stage:
        stage.write(GIGAPATH_FEATURES.name, features.to_table())
        stage.remove(GIGAPATH_THROUGHPUT.name)  # of features that are no longer present
    return Outcome(fingerprint, True)


def read_features(store: Store, slide_id: str) -> Features:
    """Read a slide's stored features with the tiles they belong to.

    Raises `FeatureError` if the tiles were made again since, or the features have a wrong width.
    """
    tiles, rows = store.read(TILE_GRIDS.name, slide_id), store.read(GIGAPATH_FEATURES.name, slide_id)
    same = rows["tile_id"].equals(tiles["tile_id"])
    stored = require_current_grid(store, slide_id, GIGAPATH_FEATURES.name, same)
    width = getattr(rows.schema.field("feature").type, "list_size", None)
    if width != DIM:
        raise FeatureError(f"{slide_id}: its features have width {width}, not {DIM}; run: stpath-assets run {slide_id}")
    matrix = rows["feature"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)
    return Features(
        slide_id, rows["tile_id"].to_pylist(), matrix, centers_of(tiles), float(stored.facts["slide_mpp"]),
        float(stored.facts["tile_mpp"]), str(stored.facts["encoder"]),
        {k: str(v) for k, v in stored.facts.items() if k.startswith("encoder")}, *_scan_of(store, slide_id),
    )  # fmt: skip


def _scan_of(store: Store, slide_id: str) -> tuple[str, Mpp | None]:
    """Return where a slide's scan is, and its scale if the file does not say; nothing for features without a registered slide."""
    row = next((r for r in Registry(store).all() if r.slide_id == slide_id), None)
    return ("", None) if row is None else (row.uri, row.given_mpp)
