"""Tells a webhook of each failed run, with the reasons: one message a failure."""

import time
from typing import Any

import dagster as dg
import httpx

from stpath_assets.defs.execution import FAILED
from stpath_assets.errors import one_line
from stpath_assets.settings import Settings

TRIES = 3
_WAIT_S = 10.0
_MOST = 20


@dg.run_failure_sensor(
    name="tell_failures",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts each failed run to `failure_webhook`, with the slides and reasons. Does nothing if it is not set.",
)
def tell_failures(context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings]) -> None:
    """Post a failed run as JSON: `text` for people (as Slack and others show it), and the same in fields."""
    if settings.failure_webhook is None:
        return
    said = message_of(context)
    for attempt in range(TRIES):
        try:
            httpx.post(settings.failure_webhook.get_secret_value(), json=said, timeout=_WAIT_S).raise_for_status()
            return
        except httpx.HTTPError as e:
            if attempt == TRIES - 1:
                # The URL may hold a secret, so neither it nor the cause is shown.
                said_of = f"{e.response.status_code}" if isinstance(e, httpx.HTTPStatusError) else type(e).__name__
                raise dg.Failure(
                    f"run {context.dagster_run.run_id}: the webhook did not take its failure ({said_of})"
                ) from None
            time.sleep(2**attempt)


def message_of(context: dg.RunFailureSensorContext) -> dict[str, Any]:
    """Return what is posted of a failed run."""
    run, slides, other = context.dagster_run, dict[str, str](), list[str]()
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        failure = data.user_failure_data
        failed: Any = failure.metadata[FAILED].value if failure and FAILED in failure.metadata else None
        if failed is not None:
            slides |= failed
        elif failure and failure.description:
            other.append(failure.description)
        elif data.error is not None:
            other.append(one_line(data.error.message))
    if not slides and not other:
        other.append(one_line(context.failure_event.message or "no reason is known"))
    reasons = [*slides.values(), *other]
    more = f" | and {len(reasons) - _MOST} more" if len(reasons) > _MOST else ""
    text = f"{run.job_name} failed: {' | '.join(reasons[:_MOST])}{more} (run {run.run_id[:8]})"
    return {"text": text, "job": run.job_name, "run_id": run.run_id, "slides": slides, "other": other}
