"""The documentation says what there is: an undocumented setting, command, table or column fails, as does a dead link."""

import re
from pathlib import Path

import pytest

from stpath_assets.catalog.reference import to_markdown, to_text
from stpath_assets.catalog.views import MACROS, VIEWS
from stpath_assets.cli import main
from stpath_assets.settings import Settings
from stpath_assets.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(Settings.model_fields)
    for name in ("encoder", "genes", "device", "batch_size", "min_tissue"):
        row = re.search(rf"^\| `{name}` \| `?([^`|]+?)`? \|", text, re.M)
        assert row is not None
        assert row[1] == str(Settings.model_fields[name].default)


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert set(re.findall(r"^\| `(\w+)", text, re.M)) - {"command"} == set(main.commands)


def test_the_schema_page_and_the_command_are_what_the_code_says() -> None:
    page, said = (ROOT / "docs" / "schema.md").read_text(), " ".join(to_text().split())
    assert page == to_markdown() + "\n"
    for name in (*TABLES, *VIEWS, *MACROS):
        assert f"### {name}\n" in page
    for table in TABLES.values():
        for field in table.view_columns():
            meaning = field.metadata[b"description"].decode()
            assert f"| `{field.name}` | " in page
            assert meaning in page
            assert " ".join(meaning.replace("`", "").split()) in said


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_reached_from_the_readme_in_two_steps() -> None:
    def linked(page: Path) -> set[Path]:
        targets = re.findall(r"\]\(([^)#]+\.md)", page.read_text())
        return {(page.parent / t).resolve() for t in targets if not t.startswith("http")}

    first = linked(ROOT / "README.md")
    reached = first | {page for step in first for page in linked(step)}
    assert {page.resolve() for page in (ROOT / "docs").rglob("*.md")} - reached == {
        (ROOT / "docs" / "index.md").resolve()
    }
    assert len((ROOT / "README.md").read_text().splitlines()) < 100


def test_the_map_of_the_readme_names_every_table() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in text for name in TABLES)


def test_the_walks_name_files_that_are_there_and_each_once() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    named = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    assert len(named) > 40
    assert [n for n in named if not (ROOT / "stpath_assets" / n).exists()] == []
    assert len(set(named)) == len(named)
