"""docs/queries.md is run as it stands: its set-up by a shell, each of its questions by the catalog, on the demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.asked import ask_arrow
from tests.roots import copy_home

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "queries.md").read_text()
QUESTIONS = dict(re.findall(r"^### (\d+\. .*?)\n\n```sql\n(.*?)```", PAGE, re.M | re.S))


def test_there_are_twenty_questions() -> None:
    assert len(QUESTIONS) >= 20
    assert len(QUESTIONS) == PAGE.count("```sql"), "each is numbered"


@pytest.fixture(scope="module")
def home(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo after the page's set-up."""
    folder = tmp_path_factory.mktemp("queries")
    home = folder / "root"
    copy_home(demo_home, home)
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    # The scans of a copied root are where they were.
    script = script.replace("$STPATH_HOME/inbox", str(demo_home / "inbox"))
    env = {**os.environ, "STPATH_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-eu", "-c", script], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_on_the_demo(home: Path, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "made again" in question:
        monkeypatch.setenv("STPATH_MIN_TISSUE", "0.6")
    rows = ask_arrow(home, QUESTIONS[question])
    assert rows.num_rows > 0
    assert all(
        rows[name].null_count < rows.num_rows for name in rows.column_names if name not in ("failed", "made_from")
    ), rows


def test_nothing_is_to_be_made_again_after_the_demo(home: Path) -> None:
    rows = ask_arrow(home, "select slide_id, stage, field from stale_slides where stage <> 'reference_predictions'")
    assert rows.to_pylist() == []
