"""Checks of the whole cohort. They run with the asset `catalog`; those of single slides are in `assets/`."""

import time
from typing import Any

import dagster as dg

from stpath_assets.defs.assets.spec import one_line_failures
from stpath_assets.ingestion import done_of, read_inbox, read_quarantine
from stpath_assets.settings import Settings
from stpath_assets.stages import Plan, states_of
from stpath_assets.storage import Store

MOST = 20
"""Most names that a check shows."""

PATIENCE_S = 3600.0
"""How old a scan of the inbox may be that is not dealt with, s."""

_BAD = ("failed", "gone", "replaced")


@dg.asset_check(asset="catalog", description="No stage of a live slide has failed, no scan is gone or in quarantine.")
def no_slide_failed(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Count the slides that cannot be made as they are, and name some."""
    store, bad = Store.of(settings), dict[str, str]()
    with one_line_failures():
        if store.is_there():
            for row, states in states_of(store, Plan(settings)):
                why = next((state.why for state in states.values() if state.kind in _BAD), None)
                if why is not None:
                    bad[row.slide_id] = why
            bad |= {scan.slide_id: scan.why for scan in read_quarantine(store).values() if scan.is_over}
    return _result(
        bad, "see `stpath-assets status`; correct the scan, its sidecar or the settings, and run the slides again"
    )


@dg.asset_check(asset="catalog", description="No complete scan of the inbox has waited for more than an hour.")
def inbox_is_fresh(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Count the scans that nobody has registered: the sensor `new_scans` may be off, or its runs may fail."""
    store, inbox = Store.of(settings), read_inbox(settings)
    with one_line_failures():
        done = done_of(store, inbox.arrivals) if store.is_there() else {}
    waiting = {
        a.entry.scan: f"since {time.strftime('%F %T', time.localtime(a.seen.modified_ns / 1e9))}"
        for a in inbox.arrivals
        if done.get(a.entry.scan) != a.digest and time.time() - a.seen.modified_ns / 1e9 > PATIENCE_S
    }
    unread = dict.fromkeys(inbox.problems, "")
    return _result(waiting | unread, "turn the sensor `new_scans` on, and look at its ticks", warns=True)


def _result(bad: dict[str, str], way_out: str, warns: bool = False) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"count": len(bad)}
    if bad:
        metadata["some"] = dg.MetadataValue.json({name: bad[name] for name in sorted(bad)[:MOST]})
        metadata["what to do"] = way_out
    severity = dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(passed=not bad, metadata=metadata, severity=severity)
