"""The graph of stages, and what a slide's part of each would be made from now.

Computing a stage belongs in its own folder. Each folder offers the function that extends the fingerprint of its parent stage,
and uses the same function to store a part.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stpath_assets import spots, weights
from stpath_assets.errors import StpathError
from stpath_assets.evaluation import in_context, metrics_from, protocols, registration, registration_from
from stpath_assets.evaluation.in_context import ContextChoice, context_from
from stpath_assets.features import embedder_of, encoders
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.prediction import predict, references, summaries
from stpath_assets.prediction.predict import ModelChoice
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, registered
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import (
    CONTEXT_PREDICTIONS,
    EVALUATION_METRICS,
    EXPRESSION_BY_SLIDE,
    GENE_MATCHES,
    GIGAPATH_FEATURES,
    GIGAPATH_THROUGHPUT,
    MODEL_COMPARISON,
    PREDICTION_ERRORS,
    REFERENCE_PREDICTIONS,
    SLIDES,
    SPOT_EXPRESSION,
    SPOT_REGISTRATION,
    STPATH_PREDICTIONS,
    TILE_GRIDS,
)
from stpath_assets.tiles import GivenTiles, SpotGrid, TileParameters
from stpath_assets.tiles.reader import CODE_VERSION as PIXELS_CODE_VERSION
from stpath_assets.tiles.survey import CODE as TILES_CODE
from stpath_assets.weights import hashes

Asked = tuple[str | None, ...]
"""Encoder, genes, models and context of a slide's last run."""

Expected = Callable[["Plan", Registered], "Fingerprint | None"]


@dataclass(frozen=True)
class Stage:
    """A stage, named like its asset and first table.

    `expected` returns the fingerprint that a slide's part would have now, or None if there is nothing to do. It raises
    `StpathError` if that cannot be determined, for example without weights.
    """

    name: str
    parents: tuple[str, ...]
    code_version: str
    expected: Expected
    also: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it writes, in one transaction."""
        return (self.name, *self.also)


class Plan:
    """What slides would be made from now, with some settings. Uses no network: weights that are not on this machine are an
    error. Each command or run makes its own plan, which reads each file once.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._encoders: dict[str, dict[str, str] | StpathError] = {}
        self._models: dict[tuple[str, str], tuple[dict[str, str], list[str] | None] | StpathError] = {}
        self._references: list[references.Stored] | None = None
        self._row: Registered | None = None
        self._done: dict[str, Fingerprint | StpathError | None] = {}
        self._settings: dict[Asked, Settings] = {}
        self._tiles: dict[Asked, TileParameters] = {}

    def expected(self, stage: str, row: Registered) -> Fingerprint | None:
        """Return the fingerprint that a slide's part of a stage would have now, or None if there is nothing to do.

        Raises `StpathError` if that cannot be determined.
        """
        if row is not self._row:  # a stage asks for its parents; no other slide's are needed again
            self._row, self._done = row, {}
        if stage not in self._done:
            self._done[stage] = _outcome(lambda: STAGES[stage].expected(self, row))
        return _raised(self._done[stage])

    def require(self, stage: str, row: Registered) -> Fingerprint:
        """Return `expected` for a stage that every slide has."""
        found = self.expected(stage, row)
        assert found is not None
        return found

    def settings_of(self, row: Registered) -> Settings:
        """Return the settings of a slide."""
        key = _asked(row)
        if key not in self._settings:
            self._settings[key] = self.settings.for_slide(*key)
        return self._settings[key]

    def tiles_of(self, row: Registered) -> TileParameters:
        """Return what the grid of a slide would depend on besides the scan."""
        key = _asked(row)
        if key not in self._tiles:
            self._tiles[key] = TileParameters.of(self.settings_of(row))
        return self._tiles[key]

    def encoder_facts(self, row: Registered) -> dict[str, str]:
        """Return what features of a slide's tiles would depend on besides the pixels."""
        settings = self.settings_of(row)
        if settings.encoder not in self._encoders:
            self._encoders[settings.encoder] = _outcome(lambda: self._facts(settings))
        return _raised(self._encoders[settings.encoder])

    def model(self, row: Registered) -> tuple[dict[str, str], list[str] | None]:
        """Return the model of a slide's predictions, and the panel, None for all genes."""
        settings = self.settings_of(row)
        key = (settings.encoder, settings.genes)
        if key not in self._models:
            self._models[key] = _outcome(lambda: _model(settings))
        return _raised(self._models[key])

    def references(self, row: Registered) -> tuple[list[references.Chosen], list[str]]:
        """Return the fitted predictors that predict a slide, and why others that are asked for do not, a line each."""
        if self._references is None:
            self._references = references.read_references(Store.of(self.settings))
        return references.choose_all(self._references, row, self.settings_of(row))

    def _facts(self, settings: Settings) -> dict[str, str]:
        choice = EncoderChoice.of(settings.encoder, settings)
        if settings.encoder_url is not None:
            return embedder_of(settings, choice).facts()
        if settings.encoder == "gigapath":
            choice = replace(choice, path=weights.find_present(choice.path, choice.published))
        return choice.facts()


def describe_model(settings: Settings) -> Fingerprint:
    """Return what features and predictions depend on besides the slide. What cannot be determined, such as weights that are not
    on this machine, is described by its error.
    """
    plan, facts = Plan(settings), dict[str, Any]()
    try:
        facts |= plan._facts(settings)
    except StpathError as e:
        facts["encoder_error"] = str(e)
    try:
        of_model, panel = _model(settings)
        facts |= of_model | {"genes": "all" if panel is None else ",".join(sorted(panel))}
    except StpathError as e:
        facts["model_error"] = str(e)
    return Fingerprint(facts)


def _model(settings: Settings) -> tuple[dict[str, str], list[str] | None]:
    choice = ModelChoice.for_encoder(settings.encoder, settings)
    choice = replace(choice, weights=weights.find_present(choice.weights, choice.published))
    return choice.facts(), choice.panel(settings.genes)


def _asked(row: Registered) -> tuple[str | None, str | None, str | None, str | None]:
    return (row.asked_encoder, row.asked_genes, row.asked_models, row.asked_context)


def _outcome(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except StpathError as e:
        return e


def _raised(outcome: Any) -> Any:
    if isinstance(outcome, StpathError):
        raise outcome
    return outcome


def _slides(plan: Plan, row: Registered) -> Fingerprint:
    return row.row_fingerprint


def _tile_grids(plan: Plan, row: Registered) -> Fingerprint:
    parameters, laid = plan.tiles_of(row), None
    if row.features_uri is not None:
        given = _imported(row)["tiles"]
        # The same as `TileParameters.of_given`, without reading the file.
        parameters = replace(parameters, tile_px=given["tile_px"], mpp=given["mpp"], on_unreadable="fail")
        laid = GivenTiles.facts_of(given["sha256"])
    elif plan.settings_of(row).grid == "spots":
        path = spots.require_path(row)
        key = f"spots {spots.CODE_VERSION} {spots.spots_fingerprint(path)}"
        laid = SpotGrid.facts_of(hashes.derive(path, key, lambda: SpotGrid.of(spots.read_spots(path)).sha256))
    regions = None if row.regions_uri is None else hashes.sha256_of(Path(row.regions_uri))
    return parameters.extend(row.fingerprint, regions, laid)


def _features(plan: Plan, row: Registered) -> Fingerprint:
    tiles = plan.require(TILE_GRIDS.name, row)
    facts = plan.encoder_facts(row) if row.features_uri is None else _imported(row)["facts"]
    return encoders.extend(tiles, facts)


def _predictions(plan: Plan, row: Registered) -> Fingerprint | None:
    if references.STPATH not in references.asked_models(plan.settings_of(row)):
        return None
    facts, panel = plan.model(row)
    return predict.extend(plan.require(GIGAPATH_FEATURES.name, row), row, panel, facts)


def _reference_predictions(plan: Plan, row: Registered) -> Fingerprint | None:
    chosen, _ = plan.references(row)
    return references.extend(plan.require(GIGAPATH_FEATURES.name, row), row, chosen) if chosen else None


def _spots(plan: Plan, row: Registered) -> Fingerprint | None:
    return None if row.spots_uri is None else spots.spots_from(row)


def _registration(plan: Plan, row: Registered) -> Fingerprint | None:
    measured = plan.expected(SPOT_EXPRESSION.name, row)
    return None if measured is None else registration_from(measured)


def _by_slide(plan: Plan, row: Registered) -> Fingerprint | None:
    made = _predicted(plan, row)
    return summaries.summary_from(made) if made else None


def _context(plan: Plan, row: Registered) -> Fingerprint | None:
    choice, measured = ContextChoice.of(plan.settings_of(row).context), plan.expected(SPOT_EXPRESSION.name, row)
    if choice is None or measured is None:
        return None
    made = _predicted(plan, row)
    return context_from(made, measured, choice) if made else None


def _predicted(plan: Plan, row: Registered) -> list[Fingerprint]:
    both = [plan.expected(s, row) for s in (STPATH_PREDICTIONS.name, REFERENCE_PREDICTIONS.name)]
    return [p for p in both if p is not None]


def _metrics(plan: Plan, row: Registered) -> Fingerprint | None:
    measured = plan.expected(SPOT_EXPRESSION.name, row)
    if measured is None:
        return None
    made, known = _predicted(plan, row), plan.expected(CONTEXT_PREDICTIONS.name, row)
    return metrics_from([*made, *([] if known is None else [known])], measured) if made else None


def _imported(row: Registered) -> dict[str, Any]:
    """Return what tiles and features of a slide's feature file are made from. The file is read once per version of it."""
    from stpath_assets.features import trident

    path = Path(str(row.features_uri))

    def compute() -> str:
        found = trident.read(path, row)
        tiles = {"sha256": found.tiles.sha256, "tile_px": found.tiles.tile_px, "mpp": found.tiles.mpp}
        return json.dumps({"tiles": tiles, "facts": found.facts})

    key = f"features {encoders.CODE_VERSION} {row.fingerprint.digest} {row.width_px} {row.height_px}"
    return dict(json.loads(hashes.derive(path, key, compute)))


STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage(SLIDES.name, (), registered.CODE_VERSION, _slides),
        Stage(TILE_GRIDS.name, (SLIDES.name,), TILES_CODE, _tile_grids),
        Stage(
            GIGAPATH_FEATURES.name, (TILE_GRIDS.name,), f"{PIXELS_CODE_VERSION}.{encoders.CODE_VERSION}", _features,
            (GIGAPATH_THROUGHPUT.name,),
        ),
        Stage(STPATH_PREDICTIONS.name, (GIGAPATH_FEATURES.name,), predict.CODE_VERSION, _predictions),
        Stage(
            REFERENCE_PREDICTIONS.name, (GIGAPATH_FEATURES.name,), references.CODE_VERSION, _reference_predictions
        ),
        Stage(SPOT_EXPRESSION.name, (SLIDES.name,), spots.CODE_VERSION, _spots),
        Stage(SPOT_REGISTRATION.name, (SPOT_EXPRESSION.name,), registration.CODE_VERSION, _registration),
        Stage(
            EXPRESSION_BY_SLIDE.name, (STPATH_PREDICTIONS.name, REFERENCE_PREDICTIONS.name), summaries.CODE_VERSION, _by_slide
        ),
        Stage(
            CONTEXT_PREDICTIONS.name, (STPATH_PREDICTIONS.name, REFERENCE_PREDICTIONS.name, SPOT_EXPRESSION.name),
            in_context.CODE_VERSION, _context,
        ),
        Stage(
            EVALUATION_METRICS.name,
            # The last waits for all others, so that a run ends with one error.
            (STPATH_PREDICTIONS.name, REFERENCE_PREDICTIONS.name, EXPRESSION_BY_SLIDE.name, CONTEXT_PREDICTIONS.name,
             SPOT_EXPRESSION.name, SPOT_REGISTRATION.name, TILE_GRIDS.name),
            protocols.CODE_VERSION, _metrics, (MODEL_COMPARISON.name, GENE_MATCHES.name, PREDICTION_ERRORS.name),
        ),
    )
}  # fmt: skip
"""The stages in the order of the data flow."""
