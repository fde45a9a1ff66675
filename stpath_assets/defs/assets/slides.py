"""The `slides` asset: a registered scan, read again in place."""

import dagster as dg

from stpath_assets.defs.assets.spec import at_work, one_line_failures, per_slide, picture, result
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Outcome, Store, pictures
from stpath_assets.tables import SLIDES


@per_slide(
    SLIDES,
    group="slides",
    description="Checks that the scan is there and intact, and hashes its content. `stpath-assets add` registers scans.",
)
def slides(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Refresh a slide's row."""
    with one_line_failures(), at_work(context, settings, SLIDES, context.partition_key) as before:
        row = Registry(Store.of(settings)).refresh(before.slide_id)
        with row.open() as slide:
            thumbnail = pictures.small_jpeg(slide.thumbnail(420, partly=settings.unreadable == "drop"))
    metadata = {
        "thumbnail": picture(thumbnail, row.slide_id),
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
    return result(context, settings, SLIDES, Outcome(row.row_fingerprint, row != before, tuple(row.warnings)), metadata)
