"""The `slides` asset: a registered scan, read again in place."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Outcome, Store, pictures
from stpath_assets.tables import SLIDES

SCALE = "scale_is_clear"


@per_slide(
    SLIDES,
    description="Checks that the scan is there and intact, and hashes its content. `stpath-assets add` registers scans.",
    checks={
        SCALE: "The file's scale, the given one, the objective and the sides of a pixel do not contradict each other."
    },
)
def slides(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Refresh the slides' rows."""
    store = Store.of(settings)

    def refresh(before: Registered) -> Report:
        row = Registry(store).refresh(before.slide_id)
        made = Outcome(row.row_fingerprint, row != before, tuple(row.warnings))
        contradictions = {"why": " | ".join(row.warnings)} if row.warnings else {}
        return Report(
            made,
            lambda: _describe(row, partly=settings.unreadable == "drop"),
            lambda _: [Checked(SCALE, not row.warnings, contradictions, warns=True)],
        )

    yield from each_slide(context, settings, SLIDES, refresh)


def _describe(row: Registered, partly: bool) -> dict[str, Any]:
    with row.open() as slide:
        thumbnail = pictures.small_jpeg(slide.thumbnail(420, partly=partly))
    return {
        "thumbnail": picture(thumbnail, row.slide_id),
        "scan": row.uri,
        "scan_size_bytes": row.size_bytes,
        "scan_sha256": row.sha256,
        "mpp": row.mpp,
        **({} if row.mpp_xy[0] == row.mpp_xy[1] else {"mpp_x": row.mpp_xy[0], "mpp_y": row.mpp_xy[1]}),
        "mpp_source": row.mpp_source,
        "objective_power": row.objective_power or "not in the file",
        "vendor": row.vendor or "not known",
        "backend": row.backend,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "organ": row.organ or "none",
        "tech": row.tech or "none",
    }
