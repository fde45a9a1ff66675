"""H&E whole-slide scans to predicted spatial gene expression.

Four calls from a scan to an AnnData: `open_slide`, `tile`, `embed`, `predict_expression`. `evaluate` scores it against measured
spots, `plot` draws a gene, `fit` fits a predictor to measured slides, `hest_bench` runs a task of HEST-Benchmark, `catalog` opens
the catalog of a data root, `read_prediction` reads a slide's prediction from one. They read the settings of STPATH_HOME and the
environment; `settings()` shows which values hold and where each comes from. Names are imported on first use: importing the
package imports neither torch nor dagster.
"""

from typing import TYPE_CHECKING, Any

from stpath_assets.version import __version__

if TYPE_CHECKING:
    from stpath_assets.catalog import open_catalog as catalog
    from stpath_assets.evaluation import evaluate, fit, hest_bench, plot
    from stpath_assets.notebook import embed, predict_expression, read_prediction, tile
    from stpath_assets.prediction import Context
    from stpath_assets.settings import load_settings as settings
    from stpath_assets.slides import open_slide

__all__ = [
    "Context",
    "__version__",
    "catalog",
    "embed",
    "evaluate",
    "fit",
    "hest_bench",
    "open_slide",
    "plot",
    "predict_expression",
    "read_prediction",
    "settings",
    "tile",
]

_WHERE = {
    "open_slide": "slides",
    "tile": "notebook",
    "embed": "notebook",
    "predict_expression": "notebook",
    "read_prediction": "notebook",
    "Context": "prediction",
    "evaluate": "evaluation",
    "hest_bench": "evaluation",
    "fit": "evaluation",
    "plot": "evaluation",
}

# Names of omicverse's tutorial.
_ELSEWHERE = {
    "open_wsi": "its name is open_slide",
    "load_breast": "type: stpath-assets get visium-breast-1, then sa.open_slide",
    "read_visium_with_image": "sa.evaluate and sa.fit take the folder of Space Ranger",
    "spot_features": "sa.tile(slide, spots=…) centres tiles on spots, and sa.embed has their features",
    "super_resolve": "sa.tile(slide, stride=0.5) predicts at half the distance",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in ("settings", "catalog"):
        from importlib import import_module

        return import_module(f"{__name__}.{name}")  # a module that can be called
    hint = f"; {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted(__all__)
