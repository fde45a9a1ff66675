"""`sql`: queries the catalog, read-only."""

import shutil
import sys
from pathlib import Path

import click

from stpath_assets.cli.options import common
from stpath_assets.cli.rows import FORMS
from stpath_assets.errors import QueryError


@click.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(FORMS), default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--wide", is_flag=True, help="Show all columns and whole texts, however wide the table is.")
@click.option("--at", help="Query the tables as they were then: 2026-11-01, or '2026-11-01 12:00'.")
@click.option("--schema", is_flag=True, help="Print each view, macro and column with its meaning; QUERY may name one.")
@click.option("--attach", is_flag=True, help="Print how to open the lake from DuckDB's shell, Python, R and DBeaver.")
@common
def sql(
    query: str | None,
    home: str | None,
    form: str,
    as_json: bool,
    wide: bool,
    at: str | None,
    schema: bool,
    attach: bool,
) -> None:
    """Query the catalog in SQL, read-only.

    QUERY is a statement, a file that ends in .sql, or - for stdin. Without it, a prompt with history and completion.

    \b
    stpath-assets sql "select * from slides"
    stpath-assets sql "select slide_id, z from expression_by_slide where gene = 'ERBB2' order by z desc"
    stpath-assets sql --schema expression_by_slide
    """
    from stpath_assets.catalog import attach_lines, reference
    from stpath_assets.cli.prompt import Prompt, answer
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    if schema:
        click.echo(reference.to_text(query, min(shutil.get_terminal_size().columns, 120)))
        return
    settings, form = load_settings(home), "json" if as_json else form
    if attach:
        click.echo(attach_lines(Store.of(settings)), nl=False)
    elif query is None and sys.stdin.isatty():
        Prompt(settings, form, wide, at).run()
    else:
        answer(settings, _statement(query), form, wide, at)


def _statement(query: str | None) -> str:
    """Return the statement: as given, or read from stdin or a file. Raises `QueryError` if that is not text."""
    if query in (None, "-"):
        name, raw = "stdin", sys.stdin.buffer.read()
    elif str(query).endswith(".sql") and " " not in str(query):
        name, raw = str(query), Path(str(query)).read_bytes()
    else:
        return str(query)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise QueryError(f"{name}: is not text in UTF-8; save the statement as text") from e
