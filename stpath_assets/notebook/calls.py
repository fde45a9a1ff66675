"""The tutorial's steps as a notebook calls them: those of the stages, and a hint for arguments of omicverse's tutorial that have
another name here, or no use.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stpath_assets import exports, features, prediction, tiles
from stpath_assets.features import Features
from stpath_assets.settings import load_settings
from stpath_assets.slides import Slide
from stpath_assets.tiles import Tiles

if TYPE_CHECKING:
    import anndata

P = ParamSpec("P")
T = TypeVar("T")

_KEYS = "each call returns its result and stores nothing in the slide; keep what it returns"
_HUB = {
    "hf_token": "set HF_TOKEN, or log in: hf auth login",
    "cache_dir": "set HF_HOME for weights; results are kept by the platform: stpath-assets run",
}
_OF_TILE = dict.fromkeys(("tile_key", "tissue_key", "key_added"), _KEYS) | {
    "tile_size": "its name is tile_px",
    "overlap": "give stride: 0.5 overlaps by half",
}
_OF_EMBED = (
    dict.fromkeys(("tile_key", "key_added"), _KEYS)
    | _HUB
    | {
        "num_workers": "tiles are read by as many threads as there are cores; leave it out",
        "model_path": "set STPATH_GIGAPATH_WEIGHTS to the file",
        "weight_path": "set STPATH_GIGAPATH_WEIGHTS to the file",
        "fm_weight_path": "set STPATH_GIGAPATH_WEIGHTS to the file",
        "amp": "give precision: float16 or bfloat16",
    }
)
_OF_PREDICT = (
    dict.fromkeys(("tile_key", "key_added", "feature_key"), _KEYS)
    | _HUB
    | {
        "method": "predict_expression is STPath; other predictors are made by sa.fit",
        "weight_path": "set STPATH_WEIGHTS to the file, stfm.pth",
        "fm_weight_path": "it belongs to sa.embed: set STPATH_GIGAPATH_WEIGHTS to the file",
        "gene_voc_path": "set STPATH_VOCABULARY to the file, symbol2ensembl.json",
        "fm_backbone": "it is `model` of sa.embed",
        "reference": "give known spots as context=sa.Context(…), or fit a predictor: sa.fit",
        "device": "set STPATH_DEVICE: auto, cpu or cuda",
        "organ_type": "its name is organ",
        "tech_type": "its name is tech",
        "save_gene_names": "its name is genes",
    }
)


def _answers(call: Callable[P, T], takes: type, moved: Mapping[str, str]) -> Callable[P, T]:
    """Return a call that answers arguments of other tools, and a first argument of another step, by a `TypeError` that says what
    to do.
    """

    @functools.wraps(call)
    def answering(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name in moved:
                raise TypeError(f"{call.__name__}() has no argument {name}=: {moved[name]}")
        if args and not isinstance(args[0], takes):
            raise TypeError(
                f"{call.__name__}() takes the {takes.__name__} that {_MADE_BY[takes]} returns, not {type(args[0]).__name__}"
            )
        return call(*args, **kwargs)

    return answering


_MADE_BY: dict[type, str] = {Slide: "sa.open_slide", Tiles: "sa.tile", Features: "sa.embed"}

tile = _answers(tiles.tile, Slide, _OF_TILE)
embed = _answers(features.embed, Tiles, _OF_EMBED)


@functools.wraps(prediction.predict_expression)
def _predict(*args: Any, **kwargs: Any) -> "anndata.AnnData":
    return exports.add_reliability(prediction.predict_expression(*args, **kwargs), load_settings())


predict_expression = _answers(_predict, Features, _OF_PREDICT)


def read_prediction(slide_id: str, model: str | None = None, home: str | Path | None = None) -> "anndata.AnnData":
    """Read a slide's prediction from a data root, STPATH_HOME unless `home` is given: what `predict_expression` returns for it,
    with its genes in the order in which they were asked for. `model` is STPath unless given, for example `ridge:NAME`.

    Raises `StorageError` if there is none, `FeatureError` if the tiles were made again since.
    """
    return exports.prediction_of(load_settings(home), slide_id, model)
