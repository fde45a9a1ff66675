"""The way of the data is the way of the imports: no circle, and no folder imports one that comes after it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import stpath_assets

ROOT = Path(stpath_assets.__file__).parent
MODULES = {
    ".".join(p.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in ROOT.rglob("*.py")
}
ORDER = (
    "storage",
    "vocabulary",
    "weights",
    "slides",
    "spots",
    "ingestion",
    "tiles",
    "features",
    "prediction",
    "evaluation",
    "stages",
    "catalog",
    "imports",
    "exports",
    "notebook",
    "viewer",
    "report",
    "doctor",
    "demo",
    "defs",
    "cli",
)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of ours that code imports, inside functions too; what only type checkers read is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stpath_assets"):
            yield from (n if (n := f"{node.module}.{a.name}") in MODULES else node.module for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)
        yield from imported(node)


IMPORTS = {name: set(imported(ast.parse(path.read_text()))) - {name} for name, path in MODULES.items()}


def test_the_imports_are_found() -> None:
    assert "stpath_assets.storage" in IMPORTS["stpath_assets.slides.registry"]
    assert "stpath_assets.slides.formats.tiff" in IMPORTS["stpath_assets.slides.formats.opening"], "inside a function"


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as e:
        pytest.fail(f"imports go in a circle: {' → '.join(e.args[1])}")


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_what_comes_before_it(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    later = ORDER[ORDER.index(folder) + 1 :]
    against = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if name.split(".")[1:2] == [folder] and other.split(".")[1:2] and other.split(".")[1] in later
    ]
    assert against == []
