"""Which slides of the inbox a run would bring further."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stpath_assets.slides import Registered
from stpath_assets.stages.plan import STAGES, Plan
from stpath_assets.stages.states import State, Survey
from stpath_assets.storage import Store
from stpath_assets.tiles import GivenTiles, SpotGrid

OF_THE_SLIDE = frozenset(
    ("slide_sha256", "slide_mpp", "slide_mpp_x", "slide_mpp_y", "regions_sha256", "spots_sha256", "organ", "tech",
     GivenTiles.FACT, SpotGrid.FACT)
)  # fmt: skip
"""Facts of a fingerprint that the scan and its sidecar decide, not the settings."""


@dataclass(frozen=True)
class Wanted:
    """A slide that a run would bring further: the first stage that is missing or outdated, and what it would be made from."""

    slide_id: str
    stage: str
    made_from: str


def find_wanted(store: Store, plan: Plan) -> Iterator[Wanted]:
    """Yield the live slides of the inbox that a run would bring further, by slide_id.

    A slide that was added by hand is left to its user. So is one that is outdated by a changed setting: nobody's setting makes a
    whole cohort anew by itself.
    """
    survey = Survey(store, plan)
    for row in survey.rows:
        if row.status != "ready" or row.arrival is None:
            continue
        states = {stage: survey.state(stage, row) for stage in STAGES}
        stage = first_wanted(states, _told(plan, row))
        if stage is not None:
            yield Wanted(row.slide_id, stage, plan.require(stage, row).digest)


def first_wanted(states: Mapping[str, State], of_the_slide: frozenset[str] = OF_THE_SLIDE) -> str | None:
    """Return the first stage that a run would make, from the states of a slide's stages in their order, or None.

    It would make what is missing, or outdated by one of these facts, if no earlier stage has failed. A stage that failed counts
    as failed until something that it depends on changes.
    """
    blocked = set[str]()
    for name, state in states.items():
        if state.kind in ("failed", "gone", "replaced") or blocked & set(STAGES[name].parents):
            blocked.add(name)
        elif state.kind == "missing" or (
            state.kind == "outdated" and any(fact in of_the_slide for fact, _, _ in state.differs)
        ):
            return name
    return None


def _told(plan: Plan, row: Registered) -> frozenset[str]:
    """Return the facts that the slide decides. Its panel counts unless the settings say otherwise."""
    own = row.asked_genes is not None and plan.settings_of(row).genes == row.asked_genes
    return OF_THE_SLIDE | {"genes"} if own else OF_THE_SLIDE
