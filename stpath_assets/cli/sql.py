"""`sql`: queries the catalog, read-only."""

import sys

import click

from stpath_assets.cli.options import common


@click.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option("--at", help="Query the tables as they were then: 2026-11-01, or '2026-11-01 12:00'.")
@click.option("--attach", is_flag=True, help="Print how to open the lake from DuckDB's shell, Python, R and DBeaver.")
@common
def sql(query: str | None, home: str | None, form: str, at: str | None, attach: bool) -> None:
    """Query the catalog in SQL, read-only.

    - reads the query from stdin. Views: slides, tile_grids, gigapath_features,
    stpath_predictions, spot_expression, evaluation_metrics, lineage, stale_slides, ...
    """
    from stpath_assets.catalog import attach_lines
    from stpath_assets.catalog import query as ask
    from stpath_assets.catalog.query import limits_of
    from stpath_assets.catalog.sandbox import cap_memory
    from stpath_assets.cli.terminal import print_result
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    settings = load_settings(home)
    if attach:
        click.echo(attach_lines(Store.of(settings)), nl=False)
        return
    if query is None:
        raise click.UsageError("give a query, or - to read it from stdin")
    statement = sys.stdin.read() if query == "-" else query
    with cap_memory(limits_of(settings)), ask(settings, statement, at) as result:
        print_result(result, form)
