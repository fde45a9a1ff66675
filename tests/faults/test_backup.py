"""A backup of the lake and of Dagster's records, restored as another root: the same answers, and nothing to do."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stpath_assets.defs.materialize import instance
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store
from tests.roots import command

pytestmark = pytest.mark.usefixtures("blank_pictures")

QUESTIONS = (
    "select * exclude (registered_at) from slides order by all",
    "select slide_id, gene, round(avg(expression_log1p), 6) as mean from stpath_predictions group by all order by all",
    "select * from evaluation_metrics order by all",
    "select slide_id, table_name, sha256 from lineage order by all",
)


def back_up(home: Path, to: Path) -> None:
    """The steps of docs/operations.md, by Python's sqlite3: databases first, then files."""
    for database in (home / "lake.sqlite", *(home / "dagster").rglob("*.db")):
        copy = to / database.relative_to(home)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(copy)) as two:
            one.backup(two)
    for name in ("tables", "figures", "regions"):
        if (home / name).exists():
            shutil.copytree(home / name, to / name, ignore=shutil.ignore_patterns("*.tmp"))
    shutil.copy(home / "dagster" / "dagster.yaml", to / "dagster" / "dagster.yaml")


def asked(home: Path) -> list[object]:
    answers = [command("sql", question, "--format", "json", "--home", home) for question in QUESTIONS]
    assert all(a.exit_code == 0 for a in answers), answers[0].output
    return [json.loads(a.stdout) for a in answers]


def events(home: Path) -> tuple[int, list[str]]:
    with instance(load_settings(home)) as opened:
        return opened.get_runs_count(), sorted(opened.get_dynamic_partitions("slides"))


def test_a_restored_root_gives_the_same_answers(finished_home: Path, tmp_path: Path) -> None:
    before, recorded = asked(finished_home), events(finished_home)
    back_up(finished_home, tmp_path / "backup")
    shutil.rmtree(finished_home)
    restored = tmp_path / "elsewhere" / "root"
    shutil.copytree(tmp_path / "backup", restored)
    assert asked(restored) == before
    assert events(restored) == recorded
    parts = {(p.table, p.slide_id): p.digest for p in Store(restored).parts()}
    ran = command("run", "--home", restored, "--encoder", "demo", "--genes", "EPCAM,VIM")
    assert ran.exit_code == 0, ran.stderr
    assert {(p.table, p.slide_id): p.digest for p in Store(restored).parts()} == parts, "nothing was made again"
