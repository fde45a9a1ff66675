"""Records what a stage did for one slide: a materialization with its fingerprint as data version, and its checks.

Dagster records outputs by itself, but an output stands for all slides of a run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from stpath_assets.defs.assets.glance import summary_of
from stpath_assets.defs.assets.metadata import is_picture, metadata_of
from stpath_assets.defs.assets.model import MODEL, observe
from stpath_assets.defs.assets.spec import CAN_BE_MADE
from stpath_assets.errors import StpathError, explain
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.stages import STAGES, Plan, working
from stpath_assets.storage import Outcome, Store
from stpath_assets.tables import REFERENCE_MODELS, Table
from stpath_assets.viewer import link_to

# Dagster's own tags for versions.
_CODE_VERSION = "dagster/code_version"
_DATA_VERSION = "dagster/data_version"
_GIVEN = "dagster/data_version_is_user_provided"
# Ours: the form of the metadata, which checks read again from an earlier event. Raised when a name is added.
_FORM, _FORM_NOW = "stpath/metadata", "5"
_INPUT_VERSION = "dagster/input_data_version/"
_INPUT_EVENT = "dagster/input_event_pointer/"


@dataclass(frozen=True)
class Checked:
    """The result of one of a slide's checks. A failed one is an error, or a warning; `why` is its metadata."""

    name: str
    passed: bool
    why: Mapping[str, Any] = field(default_factory=dict)
    warns: bool = False


@dataclass(frozen=True)
class Report:
    """What a stage did for a slide.

    `describe` returns metadata; it is called only if Dagster does not have it yet. `judge` returns the results of the slide's
    checks from the metadata's values.
    """

    made: Outcome
    describe: Callable[[], dict[str, Any]] = dict
    judge: Callable[[Mapping[str, Any]], Iterable[Checked]] = lambda metadata: ()


class Recorder:
    """Brings slides up to date in one stage, and records each. `failed_by` returns the checks that an error fails."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        settings: Settings,
        store: Store,
        table: Table,
        failed_by: Callable[[Exception], Iterable[Checked]] = lambda error: (),
    ) -> None:
        self.context, self.settings, self.store, self.table, self.failed_by = context, settings, store, table, failed_by
        self._observed: dg.EventLogRecord | None = None

    def record(self, slide_id: str, make: Callable[[Registered], Report]) -> None:
        """Bring a slide up to date and record it. If it fails, records the failed check with the reason, and raises.

        Dagster plans every check of every slide in each run, so each is recorded, also where nothing was made.
        """
        try:
            checks = [*self._materialize(slide_id, make), Checked(CAN_BE_MADE, True)]
        except Exception as e:
            self._log(slide_id, self.failed_by(e))
            self.record_failure(slide_id, self.reason(slide_id, e))
            raise
        self._log(slide_id, checks)

    def record_failure(self, slide_id: str, reason: str) -> None:
        """Record why a slide cannot be made: as a failed check, and among the events of its partition."""
        self._log(slide_id, [Checked(CAN_BE_MADE, False, {"reason": reason})])
        self.context.log_event(failure_event(self.context.asset_key, slide_id, {"reason": reason}))

    def reason(self, slide_id: str, error: Exception) -> str:
        """Return why a slide failed, on one line that names it."""
        return reason_of(slide_id, error, self.context.run.run_id)

    def _materialize(self, slide_id: str, make: Callable[[Registered], Report]) -> list[Checked]:
        """Bring a slide up to date and log its materialization. Returns its checks."""
        stage = STAGES[self.table.name]
        with working(self.store, stage.name, slide_id, self.context.log.info, self._digest_of) as row:
            asked = self.settings.asked
            report = make(Registry(self.store).keep_asked(row, asked) if asked else row)
            metadata = self._metadata(slide_id, report)
        # First what a reader wants first.
        numbers = {name: getattr(value, "value", value) for name, value in metadata.items()}
        link = {"viewer": dg.MetadataValue.url(link_to(self.settings, slide_id))}
        metadata = {"summary": summary_of(self.table.name, numbers), **link, **metadata}
        for note in report.made.notes:
            self.context.log.warning(note)
        version = report.made.fingerprint.digest
        tags = {_CODE_VERSION: stage.code_version, _DATA_VERSION: version, _GIVEN: "true", _FORM: _FORM_NOW}
        for parent in stage.parents:
            tags |= _input_tags(parent, self._last(parent, slide_id))
        if MODEL in self.context.assets_def.asset_deps[self.context.asset_key]:
            tags |= _input_tags(MODEL.to_user_string(), self._model())
        if _REFERENCES in self.context.assets_def.asset_deps[self.context.asset_key]:
            # Before the first `fit` there is no version; Dagster's own runs then record these two.
            none = {
                f"{_INPUT_EVENT}{REFERENCE_MODELS.name}": "NULL",
                f"{_INPUT_VERSION}{REFERENCE_MODELS.name}": "INITIAL",
            }
            tags |= _input_tags(REFERENCE_MODELS.name, self._of_references()) or none
        key = self.context.asset_key
        self.context.log_event(dg.AssetMaterialization(key, partition=slide_id, metadata=metadata, tags=tags))
        return list(report.judge(numbers))

    def _digest_of(self, row: Registered) -> str | None:
        """Return the fingerprint that the stage would make now, or None if that cannot be told."""
        try:
            expected = Plan(self.settings).expected(self.table.name, row)
        except StpathError:
            return None
        return None if expected is None else expected.digest

    def _metadata(self, slide_id: str, report: Report) -> dict[str, Any]:
        """Return the metadata of a slide's event. If nothing was made, it is that of the earlier event, without pictures."""
        earlier = self._last(self.table.name, slide_id)
        event = None if earlier is None else earlier.asset_materialization
        tags = (event.tags or {}) if event else {}
        same = (tags.get(_DATA_VERSION), tags.get(_FORM)) == (report.made.fingerprint.digest, _FORM_NOW)
        if report.made.recomputed or earlier is None or event is None or not same:
            return metadata_of(self.store, self.table, slide_id, report.made, report.describe())
        kept: dict[str, Any] = {name: value for name, value in event.metadata.items() if not is_picture(value)}
        if len(kept) < len(event.metadata):
            kept["pictures"] = dg.MetadataValue.dagster_run(earlier.run_id)
        return {**{n: v for n, v in kept.items() if n not in ("summary", "viewer")}, "made": False}

    def _log(self, slide_id: str, checks: Iterable[Checked]) -> None:
        for checked in checks:
            severity = dg.AssetCheckSeverity.WARN if checked.warns else dg.AssetCheckSeverity.ERROR
            self.context.log_event(
                dg.AssetCheckEvaluation(
                    self.context.asset_key, checked.name, checked.passed, checked.why, None, severity, blocking=False,
                    partition=slide_id,
                )
            )  # fmt: skip

    def _model(self) -> dg.EventLogRecord | None:
        """Return the last observation of the model, which is observed once a stage."""
        if self._observed is None:
            self._observed = observe(self.context.instance, self.settings)
        return self._observed

    def _of_references(self) -> dg.EventLogRecord | None:
        """Return the last materialization of the fitted predictors."""
        return next(iter(self.context.instance.fetch_materializations(_REFERENCES, limit=1).records), None)

    def _last(self, stage: str, slide_id: str) -> dg.EventLogRecord | None:
        """Return a slide's last materialization of a stage."""
        of_slide = dg.AssetRecordsFilter(dg.AssetKey(stage), asset_partitions=[slide_id])
        return next(iter(self.context.instance.fetch_materializations(of_slide, limit=1).records), None)


_REFERENCES = dg.AssetKey(REFERENCE_MODELS.name)


def _input_tags(parent: str, last: dg.EventLogRecord | None) -> dict[str, str]:
    event = None if last is None else last.asset_materialization or last.asset_observation
    if last is None or event is None:
        return {}
    version = (event.tags or {}).get(_DATA_VERSION)
    return {
        f"{_INPUT_EVENT}{parent}": str(last.storage_id),
        **({f"{_INPUT_VERSION}{parent}": version} if version else {}),
    }


def failure_event(asset: dg.AssetKey, slide_id: str, why: Mapping[str, str]) -> dg.AssetObservation:
    """Return the event that tells on the page of a slide's partition why it cannot be made."""
    return dg.AssetObservation(asset, description="cannot be made", partition=slide_id, metadata=why)


def reason_of(slide_id: str, error: Exception | str, run_id: str = "") -> str:
    """Return why a slide failed, on one line that names it."""
    if isinstance(error, Exception) and not isinstance(error, StpathError):
        return f"{slide_id}: {explain(error, f'the traceback is in run {run_id}')}"
    return str(error) if slide_id in str(error) else f"{slide_id}: {error}"
