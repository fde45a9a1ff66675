"""The checks of `tile_grids` say when a mask covers nothing, everything, or the filter took too much."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from stpath_assets.definitions import defs
from stpath_assets.defs.materialize import instance
from stpath_assets.defs.partitions import sync
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.tiles.test_unreadable import damaged


@pytest.mark.parametrize("case", ["nothing", "all dropped"])
def test_a_slide_without_tiles_fails_its_check_and_its_step(
    case: str, tmp_path: Path, slide_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STPATH_UNREADABLE", "drop")
    glass = slide_of("a.tif", np.full((1200, 1600, 3), 242, np.uint8))
    scan = glass if case == "nothing" else damaged(tmp_path / "a.tif", list(range(64)), 1)[0]
    check, said = {
        "nothing": ("covers_part_of_the_slide", "no tissue found"),
        "all dropped": ("few_tiles_lost", "tiles of tissue were dropped"),
    }[case]
    settings = load_settings(tmp_path / "home", encoder="demo")
    Registry(Store(settings.home)).add(scan)
    with instance(settings) as opened:
        sync(opened, Registry(Store(settings.home)))
        ran = dg.materialize(
            [asset for asset in defs.assets if isinstance(asset, dg.AssetsDefinition)],
            selection=dg.AssetSelection.assets("tile_grids"),
            resources=defs.resources,
            run_config={"resources": {"settings": {"config": {"home": str(settings.home)}}}},
            instance=opened,
            partition_key="a",
            raise_on_error=False,
        )
    assert not ran.success
    with instance(settings) as opened:
        logged = opened.all_logs(ran.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [e.dagster_event.asset_check_evaluation_data for e in logged if e.dagster_event]
    assert {e.partition for e in evaluations} == {"a"}
    assert [(e.check_name, e.passed) for e in evaluations] == [(check, False), ("can_be_made", False)]
    assert said in str(evaluations[0].metadata["why"].value)
    failure = next(e for e in ran.all_events if e.is_step_failure).step_failure_data.user_failure_data
    assert failure is not None
    assert said in str(failure.description)
