"""The graph of stages: the only place that decides what is up to date.

    plan = Plan(settings)
    plan.expected("stpath_predictions", row)      the fingerprint that the part would have now
    states_of(store, plan)                        the state of every stage of every slide, and why

Storing, `status`, `doctor`, Dagster and the view `stale_slides` all use it. `plan` holds the graph, `states` compares it with the
stored parts, `working` locks a slide while a stage is computed, `ready` checks weights and genes before a run.
"""

from stpath_assets.stages.plan import STAGES, Plan, Stage, describe_model
from stpath_assets.stages.ready import check_ready
from stpath_assets.stages.settled import is_settled, settle
from stpath_assets.stages.states import State, Survey, describe_differences, differences, stale_slides, states_of
from stpath_assets.stages.wanted import Wanted, find_wanted, first_wanted
from stpath_assets.stages.working import StageFailure, keep_failure, read_failures, working

__all__ = [
    "STAGES",
    "Plan",
    "Stage",
    "StageFailure",
    "State",
    "Survey",
    "Wanted",
    "check_ready",
    "is_settled",
    "settle",
    "describe_model",
    "differences",
    "find_wanted",
    "first_wanted",
    "keep_failure",
    "read_failures",
    "stale_slides",
    "states_of",
    "describe_differences",
    "working",
]
