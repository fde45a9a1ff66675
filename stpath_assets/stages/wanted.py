"""Which slides of the inbox a run would bring further."""

from collections.abc import Iterator, Mapping

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


def find_wanted(store: Store, plan: Plan) -> Iterator[str]:
    """Yield the live slides of the inbox that a run would bring further, by slide_id.

    A slide that was added by hand is left to its user. So is one that is outdated by a changed setting: nobody's setting makes a
    whole cohort anew by itself.
    """
    survey = Survey(store, plan)
    for row in survey.rows:
        if row.status != "ready" or row.arrival is None:
            continue
        states = {stage: survey.state(stage, row) for stage in STAGES}
        if is_wanted(states, _told(plan, row)):
            yield row.slide_id


def is_wanted(states: Mapping[str, State], of_the_slide: frozenset[str] = OF_THE_SLIDE) -> bool:
    """Return whether a run would bring a slide further, from the states of its stages in their order.

    It would if a stage is missing, or outdated by one of these facts, and no earlier stage has failed. A stage that failed counts
    as failed until something that it depends on changes.
    """
    blocked = set[str]()
    for name, state in states.items():
        if state.kind in ("failed", "gone", "replaced") or blocked & set(STAGES[name].parents):
            blocked.add(name)
        elif state.kind == "missing" or (
            state.kind == "outdated" and any(fact in of_the_slide for fact, _, _ in state.differs)
        ):
            return True
    return False


def _told(plan: Plan, row: Registered) -> frozenset[str]:
    """Return the facts that the slide decides. Its panel counts unless the settings say otherwise."""
    own = row.asked_genes is not None and plan.settings_of(row).genes == row.asked_genes
    return OF_THE_SLIDE | {"genes"} if own else OF_THE_SLIDE
