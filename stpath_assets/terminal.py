"""What the command line shows: progress bars, tables, query results. Nothing here decides anything."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from stpath_assets.progress import Listener

if TYPE_CHECKING:
    import duckdb

    from stpath_assets.doctor import Check

_ROWS_AT_ONCE = 10_000


@contextmanager
def progress_bars() -> Iterator[Listener]:
    """Bars on stderr where that is a terminal, nothing otherwise; yields a listener for `progress.listening`."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    # A descriptor of its own: Dagster redirects stderr itself while a step runs, to keep its log.
    with os.fdopen(os.dup(2), "w") as terminal:
        bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(file=terminal),
        )  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def listen(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        with bars:
            yield listen


def results_table(rows: list[dict[str, Any]]) -> None:
    """Prints what a run came to, a line a slide."""
    table = Table("slide", "tiles", "genes", "mean r", "spots", box=None, header_style="bold")
    for row in rows:
        r = row.get("mean_pearson_r")
        table.add_row(
            row["slide_id"],
            str(row["tiles"]),
            str(row["genes"]),
            "-" if r is None else f"{r:.3f}",
            str(row["n_spots"] or "-"),
        )
    Console(highlight=False).print(table)


def status_table(rows: list[dict[str, Any]]) -> None:
    """Prints which stages of each slide are there."""
    short = {"tile_grids": "tiles", "gigapath_features": "features", "stpath_predictions": "prediction",
             "spot_expression": "spots", "evaluation_metrics": "metrics"}  # fmt: skip
    table = Table(*(short.get(name, name) for name in rows[0]), box=None, header_style="bold")
    for row in rows:
        table.add_row(*(str(v) for v in row.values()))
    Console(highlight=False).print(table)


def show_checks(checks: "Iterable[Check]", as_json: bool) -> bool:
    """Prints checks, a line each as they are done or as one JSON array; whether all are well."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json:
            mark = "wrong" if not check.ok else "note" if check.todo else "ok"
            print(f"{mark:5}  {check.name}: {check.said}{f'; {check.todo}' if check.todo else ''}", flush=True)
    if as_json:
        print(json.dumps([asdict(c) for c in done], indent=1))
    return all(c.ok for c in done)


def print_result(result: "duckdb.DuckDBPyRelation", form: str) -> None:
    """Prints a query's result as `table`, `csv`, `json` (one array) or `parquet` (bytes)."""
    if form == "parquet":
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(result.to_arrow_table(), buffer, compression="zstd")
        sys.stdout.buffer.write(buffer.getvalue())
        sys.stdout.buffer.flush()
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        while rows := result.fetchmany(_ROWS_AT_ONCE):
            writer.writerows(rows)
    elif form == "json":
        found = [dict(zip(result.columns, values, strict=True)) for values in result.fetchall()]
        print(json.dumps(found, indent=1, default=str))
    else:
        # Wide results are cut in the middle by the terminal's width, as DuckDB's own shell does.
        result.show(max_rows=100)


def say_what_next(home: Path, held_out: list[str]) -> None:
    """Prints where the demo's results are and what to try on them."""
    slide = held_out[0]
    # As it was called: without an activated environment the bare name would not be found.
    program = "stpath-assets" if shutil.which("stpath-assets") else os.path.relpath(sys.argv[0])
    print(
        f"""
Phantoms, simulated counts and demo weights: no patient, no biology. The weights were learnt on phantom_A alone;
{slide} is held out.

figures   {home / "figures"}
ask       {program} sql --home {home} "select gene, round(pearson_r, 2) r, n_spots from evaluation_metrics
              where slide_id = '{slide}' order by r desc limit 10"
look      make dev          (or: DAGSTER_HOME={home / "dagster"} STPATH_HOME={home} dagster dev -m stpath_assets.definitions)"""
    )
