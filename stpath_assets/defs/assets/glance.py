"""What an asset's page says first: what its rows are and how to ask for them, and one line about how a slide did."""

from collections.abc import Callable, Mapping
from typing import Any

from stpath_assets.tables import Table

Numbers = Mapping[str, Any]


def about(table: Table, description: str) -> str:
    """Return an asset's description, in markdown."""
    return (
        f"One row is {table.row}. {description}\n\n"
        f"```sql\nselect * from {table.name} where slide_id = '…'\n```\n\n"
        f"A partition is a slide: its page has a summary, numbers, pictures, and a link to the slide in the viewer."
    )


LANDING = """What SQL can query across all slides, current with each stage's write. This asset counts the parts of all slides,
and those that are outdated.

    slide file → slides → tile_grids → gigapath_features → stpath_predictions → evaluation_metrics → catalog
                                                            spot_expression ↗

| what you want | where |
|---|---|
| look at a slide | `stpath-assets view`, or the link `viewer` on the slide's partition of any asset |
| ask about all slides | `stpath-assets sql "select * from cohort"` |
| a report to mail | `stpath-assets report --out report.html` |
| register scans | `stpath-assets add FOLDER`, or the sensor `new_scans` for those of the inbox |
| bring slides up to date | the job `process_slide`, or `stpath-assets run` |
| why a slide failed | its check `can_be_made`, or `stpath-assets status` |
"""


def summary_of(table: str, numbers: Numbers) -> str:
    """Return how a slide did in a stage, one line, from the metadata of its event; empty if there is nothing to say."""
    say = _SUMMARIES.get(table)
    try:
        return "" if say is None else say(numbers)
    except KeyError:  # an event of an earlier version, without the number
        return ""


def _slides(n: Numbers) -> str:
    return (
        f"{n['width_px']} × {n['height_px']} px, {float(n['mpp']):.3g} µm per pixel (by {n['mpp_source']}); "
        f"organ {n['organ']}, technology {n['tech']}"
    )


def _tiles(n: Numbers) -> str:
    dropped = {k.removeprefix("dropped_"): int(v) for k, v in n.items() if k.startswith("dropped_") and v}
    lost = ", ".join(f"{count} {why}" for why, count in dropped.items()) or "none"
    return f"{n['tiles']} tiles on {float(n['tissue_share']):.0%} of the scan; dropped: {lost}"


def _features(n: Numbers) -> str:
    speed = f", {float(n['tiles_per_s']):.0f} tiles a second on {n['device']}" if "tiles_per_s" in n else ", imported"
    return f"{n['tiles_embedded']} tiles by {n['encoder']}{speed}"


def _predictions(n: Numbers) -> str:
    return f"{n['genes']} genes by {n['model']}" if "model" in n else "none asked of STPath"


def _spots(n: Numbers) -> str:
    return f"{n['spots']} spots" if n["spots"] else "no measured expression"


def _registration(n: Numbers) -> str:
    if n["verdict"] == "no spots":
        return "no measured expression"
    why = f": {n['reason']}" if "reason" in n else ""
    return f"{n['verdict']}{why}; {float(n['on_tissue']):.0%} of {n['n_spots']} spots on tissue"


def _metrics(n: Numbers) -> str:
    if not n.get("n_spots"):
        return "nothing to compare with"
    depth = f", {float(n['mean_r_depth']):.3f} by the spots' depth alone" if "mean_r_depth" in n else ""
    return f"mean Pearson r {float(n['mean_pearson_r']):.3f}{depth}; {n['scored_genes']} genes, {n['n_spots']} spots"


_SUMMARIES: dict[str, Callable[[Numbers], str]] = {
    "slides": _slides,
    "tile_grids": _tiles,
    "gigapath_features": _features,
    "stpath_predictions": _predictions,
    "reference_predictions": lambda n: f"predictors: {n['models']}",
    "context_predictions": lambda n: f"models: {n['models']}",
    "spot_expression": _spots,
    "spot_registration": _registration,
    "evaluation_metrics": _metrics,
    "expression_by_slide": lambda n: f"{n['dagster/partition_row_count']} rows, one a gene and model",
}
