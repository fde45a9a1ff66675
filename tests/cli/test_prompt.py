"""The prompt in a real terminal: statements over lines, history, errors in one line; and what it completes."""

import fcntl
import os
import pty
import re
import select
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from stpath_assets.cli.prompt import Names
from stpath_assets.storage import Store
from tests.catalog.cohorts import draw, store_slide

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("prompt") / "root")
    store_slide(store, draw("section_1", 1))
    return store


class Terminal:
    """A process in a terminal of 80 by 30."""

    def __init__(self, home: Path, state: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
        env = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(state)}
        env.pop("COLUMNS", None)
        words = [sys.executable, "-m", "stpath_assets", "sql", "--home", str(home)]
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        self.fd = ours

    def read(self, until: str, within_s: float = 60) -> str:
        """What is written until a text comes, without codes."""
        got, end = "", time.monotonic() + within_s
        while until not in _CODES.sub("", got):
            assert time.monotonic() < end, f"{until!r} did not come: {got!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                data = os.read(self.fd, 65536).decode(errors="replace")
                got += data
                if "\x1b[6n" in data:  # where the cursor is
                    os.write(self.fd, b"\x1b[1;1R")
        return _CODES.sub("", got)

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(store.home, tmp_path / "state")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.fd)


def test_a_conversation(terminal: Terminal, tmp_path: Path) -> None:
    assert "read-only. A statement ends with ;" in terminal.read("sql>")
    terminal.type("select slide_id,\r")
    terminal.read("…")
    terminal.type("organ from slides;\r")
    assert "section_1  Breast" in terminal.read("1 row")
    terminal.type("select * from slidez;\r")
    terminal.read("error: there is no view slidez; did you mean slides?")
    terminal.type("select * from expression_by_sl\t")
    terminal.read("ide")
    terminal.type(" where gene = 'ERBB2';\r")
    terminal.read("share_above_cut")
    terminal.type("select 1 +\x03")
    terminal.read("sql>")
    terminal.type(".schema hotspots\r")
    terminal.read("gi_z")
    terminal.type("\x1b[A\x1b[A\r")  # the statement before
    terminal.read("share_above_cut")
    terminal.type(".quit\r")
    assert terminal.process.wait(30) == 0
    history = tmp_path / "state" / "stpath-assets" / "sql_history"
    assert "+select slide_id,\n+organ from slides;" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def complete(store: Store, text: str) -> list[str]:
    return [c.text for c in Names(store).get_completions(Document(text), CompleteEvent())]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("select * from tile_expr", ["tile_expression"]),
        ("select share_a", ["share_above_cut"]),
        ("from hots", ["hotspots"]),
        ("select * from x where gene = 'erb", ["ERBB2"]),
        ("select * from x where slide_id = 'sect", ["section_1"]),
        (".sch", [".schema"]),
        ("select ", []),
    ],
)
def test_what_is_completed(store: Store, text: str, names: list[str]) -> None:
    assert complete(store, text) == names
