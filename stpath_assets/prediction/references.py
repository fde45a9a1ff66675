"""Predictors that `fit` made, as the data root keeps them, and the predictions of registered slides by them.

    row = choose(read_references(store), "ridge:NAME", slide, allowed=False)
    store_references(store, slide, settings)

The register is the table `reference_models`; each predictor is a file beside the parts of the tables. A predictor comes with
copies that were each fitted without one patient, so that also a slide that it was fitted to gets a prediction that has not seen
it. Fitting is in `evaluation.fitting`.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import LeakageError, SettingsError, WeightsError
from stpath_assets.features import Features, read_features
from stpath_assets.prediction.predictors import Predictor, Reference
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import GIGAPATH_FEATURES, REFERENCE_MODELS, REFERENCE_PREDICTIONS

CODE_VERSION = "1"
"""Raised when the same features and predictors give other numbers."""

STPATH = "stpath"
"""What the setting `models` calls STPath, also with the demo weights."""

FAR = 1.5
"""Median distance of a slide's tiles to the training tiles from which a run says so. Slides of one study are at 0.9 to 1.1, of
another stain and scanner at 1.9 to 5.3 (demo features of her2st's C2 and C3 and the phantoms).
"""

MOST_COPIES = 0.5
"""Share of tiles that look exactly like training tiles from which a slide counts as one of the training slides."""

_TABLE = f"{NAME}.parts.{REFERENCE_MODELS.name}"
_GENES = 512  # predicted at a time
_MOST_LOADED = 8


@dataclass(frozen=True)
class Stored:
    """A row of `reference_models`, whose columns have descriptions."""

    model: str
    left_out: str
    asked: str
    slides: tuple[str, ...]
    patients: tuple[str, ...]
    scans: tuple[str, ...]
    n_spots: int
    n_genes: int
    encoder: str
    digest: str
    file: str
    sha256: str

    def knows_slide(self, row: Registered) -> bool:
        """Return whether it was fitted to this slide, or to the same scan under another id."""
        return row.slide_id in self.slides or row.sha256 in self.scans

    def knows_patient(self, row: Registered) -> bool:
        """Return whether it was fitted to a slide of the same patient, as far as patients are known."""
        return row.patient_id is not None and row.patient_id in self.patients


@dataclass(frozen=True)
class Chosen:
    """The predictor, or copy of it, that predicts a slide, and how the slide relates to those that it was fitted to."""

    stored: Stored
    relation: str


def asked_models(settings: Settings) -> list[str]:
    """Return the models of the settings, without repeats. Raises `SettingsError` for a name that can be none."""
    models = list(dict.fromkeys(m.strip() for m in settings.models.split(",") if m.strip()))
    wrong = [m for m in models if m != STPATH and ":" not in m]
    if wrong or not models:
        raise SettingsError(
            f"models {settings.models!r}: give {STPATH}, or predictors that were fitted, as in {STPATH},ridge:NAME"
        )
    return models


def read_references(store: Store) -> list[Stored]:
    """Return all stored predictors, each followed by its copies."""
    if not store.is_there():
        return []
    store.open()

    def read(cursor: Any) -> list[Stored]:
        names = [f.name for f in fields(Stored)]
        rows = cursor.execute(f"select {', '.join(names)} from {_TABLE} order by model, left_out").fetchall()
        values: list[dict[str, Any]] = [
            {n: tuple(v) if isinstance(v, list) else v for n, v in zip(names, row, strict=True)} for row in rows
        ]
        return [Stored(**of) for of in values]

    found: list[Stored] = store.lake.remember("references", read)
    return list(found)


def keep_references(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    """Register a predictor and its copies in place of those of its model. `rows` are of `reference_models`."""
    (model,) = {row["model"] for row in rows}
    table = pa.Table.from_pylist(list(rows), REFERENCE_MODELS.schema)

    def work(cursor: Any) -> None:
        cursor.execute(f"delete from {_TABLE} where model = ?", [model])
        insert_rows(cursor, REFERENCE_MODELS, table)

    store.create()
    store.lake.transact(work)


def write_reference(store: Store, reference: Reference, digest: str) -> tuple[str, str]:
    """Write a predictor to a file beside the parts. Returns its key and SHA-256."""
    key = f"models/{reference.about.model.replace(':', '-')}/{digest}.npz"
    with store.objects.draft(key) as path, path.open("wb") as file:
        reference.write(file)
    return key, store.objects.sha256(key)


def is_whole(store: Store, stored: Stored) -> bool:
    """Return whether a stored predictor's file is there, as it was written."""
    return store.objects.exists(stored.file) and store.objects.sha256(stored.file) == stored.sha256


def load_reference(store: Store, stored: Stored) -> Reference:
    """Read a stored predictor. Raises `WeightsError` if its file is gone, or is not what was written."""
    if stored.sha256 in _loaded:
        return _loaded[stored.sha256]
    again = f"fit it again: stpath-assets fit {stored.model.partition(':')[2]}"
    if not store.objects.exists(stored.file):
        raise WeightsError(f"{stored.model}: its file {stored.file} is gone; {again}")
    if store.objects.sha256(stored.file) != stored.sha256:
        raise WeightsError(f"{stored.model}: its file {stored.file} is damaged; {again}")
    with store.objects.open(stored.file) as file:
        reference = Reference.read(io.BytesIO(file.read()), store.objects.where(stored.file))
    while len(_loaded) >= _MOST_LOADED:
        _loaded.pop(next(iter(_loaded)))
    _loaded[stored.sha256] = reference
    return reference


_loaded: dict[str, Reference] = {}
"""The last few predictors of this process, by the SHA-256 of their files."""


def choose(references: Iterable[Stored], model: str, row: Registered, allowed: bool) -> Chosen:
    """Return the predictor of a model for a slide: one that has seen neither the slide nor its patient.

    Raises `SettingsError` if there is no such model, `LeakageError` if it has seen the slide's patient and has no copy that
    has not; `allowed` permits another slide of the patient.
    """
    mine = [r for r in references if r.model == model]
    whole = next((r for r in mine if not r.left_out), None)
    if whole is None:
        known = ", ".join(sorted({r.model for r in references})) or "none yet"
        kind, _, name = model.partition(":")
        raise SettingsError(
            f"{model}: no such predictor here; fitted are: {known}. Fit it: "
            f"stpath-assets fit {name} --model {kind} --slides SLIDE,SLIDE"
        )
    if not (whole.knows_slide(row) or whole.knows_patient(row)):
        sure = row.patient_id is not None and all(whole.patients)
        return Chosen(whole, "other patient" if sure else "unknown patient")
    for copy in mine:
        if copy.left_out and not (copy.knows_slide(row) or copy.knows_patient(row)):
            return Chosen(copy, f"{copy.left_out.partition(' ')[0]} left out")
    if whole.knows_slide(row):
        raise LeakageError(
            f"{row.slide_id}: {model} was fitted to this slide, and has no copy without it, so it does not predict it; "
            "fit it to slides of more patients"
        )
    if allowed:
        return Chosen(whole, "same patient")
    raise LeakageError(
        f"{row.slide_id}: {model} was fitted to another slide of patient {row.patient_id}, so it does not predict it: the score "
        f"would be too good; to allow it, and have it flagged, set allow_same_patient (STPATH_ALLOW_SAME_PATIENT={row.slide_id})"
    )


def choose_all(references: Sequence[Stored], row: Registered, settings: Settings) -> tuple[list[Chosen], list[str]]:
    """Return the fitted predictors that the settings ask for and that may predict a slide, and why others may not, a line each.

    Raises `SettingsError` for one that is not there.
    """
    allowed = row.slide_id in {s.strip() for s in settings.allow_same_patient.split(",")}
    chosen, refused = list[Chosen](), list[str]()
    for model in asked_models(settings):
        try:
            chosen += [choose(references, model, row, allowed)] if model != STPATH else []
        except LeakageError as e:
            refused.append(str(e))
    return chosen, refused


def extend(features: Fingerprint, row: Registered, chosen: Sequence[Chosen]) -> Fingerprint | None:
    """Return the fingerprint of a slide's `reference_predictions`, or None if no fitted predictor is asked for."""
    if not chosen:
        return None
    made_from = {c.stored.model: {"digest": c.stored.digest, "relation": c.relation} for c in chosen}
    # Baselines are for comparison with measured spots only.
    facts = {"references": made_from, "baselines": row.spots_uri is not None}
    return features.extend(REFERENCE_PREDICTIONS.name, CODE_VERSION, **facts)


def store_references(store: Store, row: Registered, settings: Settings) -> Outcome:
    """Bring a slide's `reference_predictions` up to date: a section for each fitted predictor that the settings ask for, and for
    its baselines if the slide has measured spots.

    Raises `LeakageError` for a slide whose tiles look exactly like those that a predictor was fitted to.
    """
    made_from = store.require(GIGAPATH_FEATURES.name, row.slide_id)
    chosen, refused = choose_all(read_references(store), row, settings)
    fingerprint = extend(made_from, row, chosen)
    if fingerprint is None:
        store.remove([REFERENCE_PREDICTIONS.name], row.slide_id)
        return Outcome(made_from, False, tuple(refused))
    if store.is_current(REFERENCE_PREDICTIONS.name, row.slide_id, fingerprint):
        return Outcome(fingerprint, False, tuple(refused))
    features, notes = read_features(store, row.slide_id), refused
    sections, relations = dict[str, Any](), dict[str, str]()
    for one in chosen:
        reference, model = load_reference(store, one.stored), one.stored.model
        reference.require_encoder(features)
        distance = reference.space.distance(features.matrix)
        if one.relation != "same patient" and reference.space.share_of_copies(features.matrix) > MOST_COPIES:
            raise LeakageError(
                f"{row.slide_id}: most of its tiles are those that {model} was fitted to; is it a copy of one of "
                f"{', '.join(one.stored.slides)}? retire one of them"
            )
        if (middle := float(np.median(distance))) > FAR:
            notes.append(
                f"{row.slide_id}: its tiles are unlike those that {model} was fitted to (median distance {middle:.1f}, 1 is "
                "usual among these), so do not rely on its predictions"
            )
        keys = {"tile_id": np.array(features.tile_ids, object), "distance_to_training": distance}
        fitted: dict[str, Predictor] = {model: reference.predictor}
        if row.spots_uri is not None:
            fitted |= {f"{kind}:{reference.about.name}": p for kind, p in reference.baselines.items()}
        for name, predictor in fitted.items():
            sections.setdefault(name, (keys, _blocks(predictor, features, reference.about.genes)))
            relations.setdefault(name, one.relation)
    in_order = dict(sorted(sections.items()))
    store.write_sections(REFERENCE_PREDICTIONS.name, row.slide_id, in_order, fingerprint, {"relations": relations})
    return Outcome(fingerprint, True, tuple(notes))


def relations_of(store: Store, slide_id: str) -> dict[str, str]:
    """Return the models in a slide's `reference_predictions`, each with how the slide relates to those that it was fitted to."""
    if store.part(REFERENCE_PREDICTIONS.name, slide_id) is None:
        return {}
    return dict(store.summary(REFERENCE_PREDICTIONS.name, slide_id)["relations"])


def _blocks(
    predictor: Predictor, features: Features, genes: Sequence[str]
) -> Iterable[tuple[list[str], npt.NDArray[np.float32]]]:
    """Yield predictions of a slide's tiles by gene, in ascending order."""
    values = predictor.predict(features.matrix)
    order = np.argsort(np.array(genes, object))
    for start in range(0, len(order), _GENES):
        some = order[start : start + _GENES]
        yield [genes[i] for i in some], values[:, some]
