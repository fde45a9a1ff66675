"""Checks genes and weights before a run, before any slide is touched."""

from collections.abc import Iterable

from stpath_assets.features import embedder_of
from stpath_assets.prediction import ModelChoice
from stpath_assets.prediction.references import STPATH, asked_models
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages.plan import Plan


def check_ready(settings: Settings, rows: Iterable[Registered]) -> None:
    """Raise the `StpathError` with which each of these slides would fail because weights or a gene are missing."""
    plan, seen = Plan(settings), set[tuple[str, str, str, bool]]()
    for row in rows:
        mine = plan.settings_of(row)
        if (key := (mine.encoder, mine.genes, mine.models, row.features_uri is None)) in seen:
            continue
        seen.add(key)
        plan.references(row)
        if STPATH in asked_models(mine):
            model = ModelChoice.for_encoder(mine.encoder, mine)
            model.load_vocabulary().select(model.panel(mine.genes))
        if row.features_uri is None:
            embedder_of(mine).facts()
