"""The asset `model`: what features and predictions depend on besides the slide, so that a changed setting shows as stale.

It is observed, not made: its data version is a digest of encoder, weights, vocabulary and panel. `stages` alone decides what a
run computes; a slide whose own panel or encoder differs from the settings is judged there by its own.
"""

import warnings

import dagster as dg
from dagster._core.definitions.external_asset import create_external_asset_from_source_asset

from stpath_assets.defs.assets.spec import SLIDE_GROUP
from stpath_assets.settings import Settings
from stpath_assets.stages import describe_model

MODEL = dg.AssetKey("model")
_DATA_VERSION = "dagster/data_version"
_MOST = 300


def observation_of(settings: Settings) -> dg.AssetObservation:
    """Return the event of the model as the settings have it now."""
    found = describe_model(settings)
    shown = {name: str(value)[:_MOST] for name, value in found.facts.items()}
    return dg.AssetObservation(MODEL, metadata=shown, tags={_DATA_VERSION: found.digest})


def observe(instance: dg.DagsterInstance, settings: Settings) -> dg.EventLogRecord | None:
    """Record the model if it has changed since it was observed last. Returns the last observation."""
    now, last = observation_of(settings), _last(instance)
    if last is None or last.asset_observation is None or last.asset_observation.data_version != now.data_version:
        instance.report_runless_asset_event(now)
        last = _last(instance)
    return last


def _last(instance: dg.DagsterInstance) -> dg.EventLogRecord | None:
    return next(iter(instance.fetch_observations(MODEL, limit=1).records), None)


def _observed(settings: dg.ResourceParam[Settings]) -> dg.DataVersion:
    """Observe the settings' model."""
    return dg.DataVersion(str(observation_of(settings).data_version))


with warnings.catch_warnings():
    # Dagster warns that observed assets are new, and of an old name that it uses itself where it makes an asset of them.
    warnings.simplefilter("ignore", dg.BetaWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    model = create_external_asset_from_source_asset(
        dg.observable_source_asset(
            name="model",
            group_name=SLIDE_GROUP,
            description="Encoder, weights, vocabulary, panel and precision, as the settings have them. Observed, never made.",
        )(_observed)
    )
