"""The walls: the domain never imports dagster, and what needs no torch does not wait for it.

Each test looks at `sys.modules` of a new process, since this one has long imported everything.
"""

import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stpath_assets
from stpath_assets.storage import Store

DAGSTER = ("dagster", "dagster_shared", "dagster_webserver")
TORCH = ("torch", "torchvision", "timm")


def domain_modules() -> Iterator[str]:
    """Every module but the Dagster code location and `python -m stpath_assets`."""
    for module in pkgutil.walk_packages(stpath_assets.__path__, "stpath_assets."):
        name = module.name
        if not name.startswith("stpath_assets.defs") and name not in (
            "stpath_assets.definitions",
            "stpath_assets.__main__",
        ):
            yield name


def loaded_by(code: str, *modules: str) -> list[str]:
    """Which of `modules` a new process has loaded after `code`."""
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport json, sys; print(json.dumps([m for m in {modules!r} if m in sys.modules]))",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_domain_is_found() -> None:
    found = set(domain_modules())
    assert {"stpath_assets.cli", "stpath_assets.storage", "stpath_assets.tiles.grid"} <= found
    assert {
        "stpath_assets.prediction.stpath",
        "stpath_assets.features.encoders.gigapath",
    } <= found


def test_no_domain_module_imports_dagster() -> None:
    imports = "\n".join(f"import {name}" for name in domain_modules())
    assert loaded_by(imports, *DAGSTER) == []


def test_the_package_imports_neither_torch_nor_dagster() -> None:
    assert loaded_by("import stpath_assets", *DAGSTER, *TORCH, "numpy", "pyarrow") == []


def test_the_stages_are_imported_without_torch() -> None:
    stages = ("slides", "tiles", "features", "prediction", "catalog", "cli", "evaluation.results")
    imports = "\n".join(
        f"import stpath_assets.{name}; assert not {set(TORCH)} & {{*sys.modules}}, {name!r}" for name in stages
    )
    assert loaded_by(f"import sys\n{imports}", *TORCH) == []


def test_sql_runs_without_torch_and_dagster() -> None:
    Store(Path(os.environ["STPATH_HOME"])).create()
    query = ["sql", "select count(*) as n from slides", "--format", "csv"]
    code = f"from stpath_assets.cli import main\nmain({query!r}, standalone_mode=False)"
    assert loaded_by(code, *DAGSTER, *TORCH) == []


@pytest.mark.parametrize("name", stpath_assets.__all__)
def test_the_public_names_are_there(name: str) -> None:
    assert getattr(stpath_assets, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        _ = stpath_assets.predict
