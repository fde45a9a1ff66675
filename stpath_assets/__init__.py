"""H&E whole-slide scans to predicted spatial gene expression.

Four calls from a scan to an AnnData: `open_slide`, `tile`, `embed`, `predict_expression`. `evaluate` scores it against measured
spots, `plot` draws a gene, `fit` fits a predictor to measured slides, `hest_bench` runs a task of HEST-Benchmark, `catalog` opens
the catalog of a data root. They read the settings of STPATH_HOME and the environment; `settings()` shows which values hold and
where each comes from. Names are imported on first use: importing the package imports neither torch nor dagster.
"""

from typing import TYPE_CHECKING, Any

from stpath_assets.version import __version__

if TYPE_CHECKING:
    from stpath_assets.catalog import open_catalog as catalog
    from stpath_assets.evaluation import evaluate, fit, hest_bench, plot
    from stpath_assets.features import embed
    from stpath_assets.prediction import Context, predict_expression
    from stpath_assets.settings import load_settings as settings
    from stpath_assets.slides import open_slide
    from stpath_assets.tiles import tile

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
    "settings",
    "tile",
]

_WHERE = {
    "open_slide": "slides",
    "tile": "tiles",
    "embed": "features",
    "predict_expression": "prediction",
    "Context": "prediction",
    "evaluate": "evaluation",
    "hest_bench": "evaluation",
    "fit": "evaluation",
    "plot": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in ("settings", "catalog"):
        from importlib import import_module

        return import_module(f"{__name__}.{name}")  # a module that can be called
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
