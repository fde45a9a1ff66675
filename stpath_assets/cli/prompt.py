"""The prompt of `sql`: statements over several lines, history, completion of views, columns, genes and slides.

Each statement is checked and run as one given on the command line. What begins with a dot is a command of the prompt itself.
"""

import os
import re
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from stpath_assets.catalog import query, reference
from stpath_assets.catalog.names import genes_of
from stpath_assets.catalog.query import limits_of, own_tables
from stpath_assets.catalog.sandbox import cap_memory
from stpath_assets.catalog.views import bring_up, documented
from stpath_assets.cli.options import complain
from stpath_assets.cli.rows import FORMS, print_result
from stpath_assets.errors import StpathError
from stpath_assets.settings import Settings
from stpath_assets.storage import Store

_HELP = f"""A statement ends with ; and may take several lines. Tab completes, the arrow keys and Ctrl-R find earlier ones.
.schema [NAME]   views and macros, or the columns of one
.wide            show all columns, or again those that fit
.format FORM     {", ".join(f for f in FORMS if f not in ("parquet", "arrow"))}
.help  .quit"""
_KEYWORDS = (
    "select", "from", "where", "group by", "order by", "limit", "having", "join", "using", "on", "and", "or", "not", "in",
    "is", "null", "desc", "asc", "distinct", "as", "with", "count", "avg", "sum", "min", "max", "median", "round", "case",
    "when", "then", "else", "end", "between", "like", "describe", "summarize", "union all",
)  # fmt: skip


def answer(settings: Settings, statement: str, form: str, wide: bool = False, at: str | None = None) -> None:
    """Run a statement and print its rows. Raises `QueryError`."""
    with cap_memory(limits_of(settings)), query(settings, statement, at) as result:
        print_result(result, form, wide=wide)


class Prompt:
    """Asks for statements until the end of input."""

    def __init__(self, settings: Settings, form: str, wide: bool, at: str | None) -> None:
        self.settings, self.form, self.wide, self.at = settings, form, wide, at
        self.store = Store.of(settings)

    def run(self) -> None:
        """Read and answer statements. Ctrl-C drops the line, Ctrl-D ends. Raises `StorageError` if there is no lake."""
        bring_up(self.store)
        click.echo(f"{self.store.place.name}, read-only. A statement ends with ; and .help lists commands.")
        session: PromptSession[str] = PromptSession(
            history=FileHistory(str(_history())), completer=Names(self.store), complete_while_typing=False,
            lexer=PygmentsLexer(SqlLexer), multiline=Condition(_goes_on), key_bindings=_keys(),
            prompt_continuation="  … ",
        )  # fmt: skip
        while True:
            try:
                text = session.prompt("sql> ").strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text in (".quit", ".exit", "exit", "quit"):
                return
            self._do(text)

    def _do(self, text: str) -> None:
        try:
            if text.startswith("."):
                self._command(*text.split())
            elif text.strip(";").strip():
                answer(self.settings, text, self.form, self.wide, self.at)
        except (StpathError, OSError) as e:
            complain(str(e))
        except KeyboardInterrupt:
            complain("interrupted")

    def _command(self, name: str, *words: str) -> None:
        width = shutil.get_terminal_size().columns
        if name == ".schema":
            click.echo(reference.to_text(words[0], width) if words else reference.overview(width))
        elif name == ".wide":
            self.wide = not self.wide
            click.echo("all columns" if self.wide else "the columns that fit")
        elif name == ".format" and words and words[0] in ("table", "csv", "json"):
            self.form = words[0]
        else:
            click.echo(_HELP)


class Names(Completer):
    """Completes what stands before the cursor: in quotes a gene or slide, else a view, column, macro or keyword."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield the names that begin with the word before the cursor, whatever its case."""
        before = document.text_before_cursor
        in_quotes = before.count("'") % 2 == 1
        found = re.search(r"[^']*$" if in_quotes else r"[\w.]*$", before)
        word = found[0] if found else ""
        if not word and not in_quotes:
            return
        for name in self.values if in_quotes else self.words:
            if name.lower().startswith(word.lower()):
                yield Completion(name, -len(word))

    @cached_property
    def words(self) -> list[str]:
        """Views, macros, columns and keywords."""
        known = documented()
        names = {d.name for d in known} | {c for d in known for c, _, _ in d.columns} | {*own_tables(self.store)}
        commands = [".schema", ".wide", ".format", ".help", ".quit"]
        return [*sorted(n for n in names if n.isidentifier()), *_KEYWORDS, *commands]

    @cached_property
    def values(self) -> list[str]:
        """Genes and slides, read at the first completion within quotes."""
        slides = self.store.rows("select slide_id from lake.parts.slides order by 1")
        return [*genes_of(self.store), *(s for (s,) in slides)]


def _goes_on() -> bool:
    """Return whether Enter begins a further line: until a statement ends with a semicolon. Commands are one line."""
    from prompt_toolkit.application import get_app

    text = get_app().current_buffer.text.strip()
    return bool(text) and not text.startswith(".") and not text.endswith(";") and text not in ("exit", "quit")


def _keys() -> KeyBindings:
    """Return bindings that make Alt-Enter run what has no semicolon."""
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


def _history() -> Path:
    """Return the file of earlier statements, which only this user can read."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(base) / "stpath-assets" / "sql_history"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    return path
