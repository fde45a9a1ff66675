"""Predictions as an AnnData, in the form that scanpy, squidpy and SpatialData take without a further step.

X is predicted log1p expression, and says so where these tools look: `uns['log1p']` keeps scanpy from taking the logarithm again.
The picture of the slide and its scale factors lie in `uns['spatial']`, as Space Ranger's readers lay them. What is known of a
gene's reliability is added in `exports`, from the catalog.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import StpathError
from stpath_assets.features import Features
from stpath_assets.slides import open_slide
from stpath_assets.tiles import TILE_PX
from stpath_assets.version import __version__
from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import Vocabulary

if TYPE_CHECKING:
    import anndata

HIRES_PX, LOWRES_PX = 1024, 320
"""Longest sides of the pictures in `uns['spatial']`."""

_ON_GRID = re.compile(r"r(\d{5})c(\d{5})")
SCALE = "predicted, log1p"


def to_anndata(
    features: Features,
    names: Sequence[str],
    x: npt.NDArray[np.float32],
    model: str,
    facts: Mapping[str, Any],
    vocabulary: Vocabulary | None = None,
) -> "anndata.AnnData":
    """Return predictions (N, genes) as an AnnData.

    - obs: `tile_id`, `library_id`; `array_row` and `array_col` for tiles of a regular grid
    - var: the symbols as asked, `gene_ids` (Ensembl, empty if `vocabulary` does not say)
    - obsm['spatial']: (N, 2) tile centres, level-0 pixels
    - uns['spatial'][slide_id]: `images` (`hires`, `lowres`, uint8) and `scalefactors`, unless the scan cannot be read, which
      warns
    - uns['histo']: what it was made from; `expression` says that X is predicted and log1p
    """
    import anndata
    import pandas as pd

    obs = pd.DataFrame({"tile_id": features.tile_ids, "library_id": features.slide_id}, index=features.tile_ids)
    on_grid = [_ON_GRID.fullmatch(tile_id) for tile_id in features.tile_ids]
    if all(on_grid):
        obs["array_row"] = np.array([int(m[1]) for m in on_grid if m], np.int32)
        obs["array_col"] = np.array([int(m[2]) for m in on_grid if m], np.int32)
    ids = ["" if vocabulary is None else vocabulary.id_of(gene) or "" for gene in names]
    histo = {
        "method": "stpath",
        "expression": SCALE,
        "model": model,
        "fm_backbone": features.encoder,
        "mpp": features.tile_mpp,
        "slide_mpp": features.slide_mpp,
        "version": __version__,
        # HDF5 has no null: a missing organ or tech is the padding token's name, a missing panel is `all`.
        **{k: v if v is not None else "all" if k == "genes" else tokens.PAD for k, v in facts.items()},
    }
    return anndata.AnnData(
        X=x,
        obs=obs,
        var=pd.DataFrame({"gene_ids": pd.array(ids, dtype=object)}, index=list(names)),
        obsm={"spatial": features.centers_px},
        uns={"histo": histo, "log1p": {}, "spatial": {features.slide_id: _spatial(features)}},
    )


def _spatial(features: Features) -> dict[str, Any]:
    """Return pictures of the scan and the factors from level-0 pixels to theirs. Without a scan, there are factors only."""
    # The diameter is a tile's side: a tile is drawn as large as it is with squares.
    factors: dict[str, float] = {"spot_diameter_fullres": TILE_PX * features.tile_mpp / features.slide_mpp}
    if not features.uri:
        return {"images": {}, "scalefactors": factors}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the scan; whoever opened it was told
            with open_slide(features.uri, features.given_mpp) as slide:
                images = _pictures(slide.thumbnail(HIRES_PX, partly=True), slide.width_px, slide.height_px)
                longest = max(slide.width_px, slide.height_px)
    except StpathError as e:
        warnings.warn(f"{features.slide_id}: no picture of the slide is in uns['spatial']: {e}", stacklevel=4)
        return {"images": {}, "scalefactors": factors}
    for name, image in images.items():
        factors[f"tissue_{name}_scalef"] = max(image.shape[:2]) / longest
    return {"images": images, "scalefactors": factors}


def _pictures(thumbnail: npt.NDArray[np.uint8], width_px: int, height_px: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Return pictures with one factor for both axes: a scan whose pixels are not square is shown as it is stored."""
    from PIL import Image

    found = {}
    for name, longest_px in (("hires", HIRES_PX), ("lowres", LOWRES_PX)):
        scale = min(1.0, longest_px / max(width_px, height_px))
        size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
        found[name] = np.asarray(Image.fromarray(thumbnail).resize(size, Image.Resampling.LANCZOS))
    return found
