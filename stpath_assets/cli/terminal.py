"""The command line's output: progress bars and tables. Nothing here makes decisions. Rows of queries are in `rows`."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from stpath_assets.errors import one_line
from stpath_assets.progress import Listener

if TYPE_CHECKING:
    from stpath_assets.doctor import Check

_SHOWN = 100
_COLUMNS = """
Means over genes, model {models}. r: Pearson, log1p of raw counts (protocol
tutorial:raw_log1p); r cp10k: of counts per 10,000 (tutorial:cp10k_log1p); r of
depth: what the spots' sums of counts alone reach; beyond: r given these sums."""
_MARKS = {"same patient": " !", "unknown patient": " *", "patient left out": " -", "slide left out": " -*"}
_RELATIONS = {
    "same patient": "fitted to another slide of the same patient, as allowed by name: too good to be true",
    "unknown patient": "whether it was fitted to the same patient is not known: give --patient",
    "patient left out": "by a copy that was fitted without the slide's patient",
    "slide left out": "by a copy fitted without the slide, but perhaps to others of its patient: give --patient",
}
_SHORT = {"slides": "scan", "tile_grids": "tiles", "gigapath_features": "features", "stpath_predictions": "prediction",
          "reference_predictions": "fitted", "context_predictions": "context", "expression_by_slide": "by slide",
          "spot_expression": "spots", "spot_registration": "on scan", "evaluation_metrics": "metrics"}  # fmt: skip


class _Count(MofNCompleteColumn):
    """Units done of all, once their number is known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Rate(ProgressColumn):
    """Units a second, once that is known."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed or task.total is None else f"{speed:.{1 if speed < 100 else 0}f}/s")


@contextmanager
def progress_bars() -> Iterator[Listener]:
    """Show bars on stderr if it is a terminal. Yields a listener for `progress.listening`."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    # A separate file descriptor, because Dagster redirects stderr while a step runs, to capture its log.
    with os.fdopen(os.dup(2), "w") as terminal:
        bars = Progress(
            TextColumn("{task.description}"), BarColumn(), _Count(), _Rate(), TimeRemainingColumn(),
            console=Console(file=terminal),
        )  # fmt: skip
        tasks: dict[str, TaskID] = {}
        # Libraries take seconds to load: say at once that the command has begun.
        starting = bars.add_task("starting", total=None)

        def listen(what: str, done: int, total: int) -> None:
            bars.update(starting, visible=False)
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        with bars:
            try:
                yield listen
            finally:
                bars.update(starting, visible=False)


def results_table(rows: list[dict[str, Any]], failed: Mapping[str, Sequence[str]] | None = None) -> None:
    """Print the results of a run: one line per slide, what the columns are, and which slides failed and why."""
    console = Console(highlight=False, soft_wrap=True)
    models = {row["model"] for row in rows}
    for design in dict.fromkeys(row["design"] for row in rows):
        if design != "tutorial":
            console.print(f"\n{design}: spots whose tiles were not known", markup=False)
        console.print(_results([row for row in rows if row["design"] == design], len(models) > 1))
    if any(row["n_spots"] for row in rows):
        plain = sorted({row["model"] for row in rows if row["design"] == "tutorial"})
        console.print(_COLUMNS.format(models=", ".join(plain)))
    elif rows:
        console.print(f"\nModel {', '.join(sorted(models))}; nothing measured to compare with.", markup=False)
    if any(row["model"] == "in_context(stpath-demo)" for row in rows):
        console.print("The demo weights make next to nothing of known spots; nothing else follows from that.")
    if any(row["suspect"] for row in rows):
        console.print("? these spots may not belong to the scan: see spot_registration")
    for relation, mark in _MARKS.items():
        if any(row.get("relation") == relation for row in rows) and len(models) > 1:
            console.print(f"{mark} {_RELATIONS[relation]}", markup=False)
    if failed:
        console.print(f"\n{len(failed)} failed:")
        for reasons in failed.values():
            for reason in reasons:
                console.print(f"  {one_line(reason)}", markup=False)


def _results(rows: list[dict[str, Any]], several: bool) -> Table:
    """Return the table of one design. With several models, a column names them and headings are short: 80 columns are enough."""
    means = {
        "r": "mean_pearson_r",
        "r cp10k": "mean_r_cp10k",
        "r of depth": "mean_r_depth",
        "beyond": "mean_r_beyond_depth",
    }
    table = Table(box=None, header_style="bold")
    for name in ("slide", *(["model"] if several else ["tiles", "genes"]), "spots", *means):
        table.add_column(name.removeprefix("r of ").removeprefix("r ") if several else name, no_wrap=name == "model")
    for row in rows:
        named = (
            [row["model"] + _MARKS.get(row.get("relation", ""), "")]
            if several
            else [str(row["tiles"]), str(row["genes"])]
        )
        spots = str(row["n_spots"] or "-") + (" ?" if row["suspect"] else "")
        table.add_row(
            row["slide_id"], *named, spots, *(f"{row[name]:.3f}" if name in row else "-" for name in means.values())
        )
    return table


def status_table(rows: list[dict[str, Any]]) -> None:
    """Print the state of each slide's stages: a table of one word each, then a line for each stage that is not current."""
    stages = list(_SHORT)
    # Of these, a line says what is not current, so that 80 columns are enough.
    few = ("spot_registration", "reference_predictions", "context_predictions", "expression_by_slide")
    shown = [s for s in stages if s not in few]
    table = Table("slide", "status", *(_SHORT[s] for s in shown), box=None, header_style="bold")
    for row in rows:
        table.add_row(row["slide"], row["status"], *(row.get(s, "").split(":")[0] for s in shown))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for row in rows:
        said = [f"{_SHORT[s]} {row[s]}" for s in stages if ": " in row.get(s, "")]
        said += [f"{_SHORT[s]} missing: run the slide" for s in stages if s not in shown and row.get(s) == "missing"]
        for line in _once(said):
            console.print(one_line(f"{row['slide']}: {line}"), markup=False)


def preview_table(rows: Iterable[dict[str, str]]) -> None:
    """Print what would be registered, a line per scan."""
    table, errors = Table(box=None, header_style="bold"), list[str]()
    for row in rows:
        errors += [row["error"]] if row["error"] else []
        shown = {name: one_line(value) for name, value in row.items() if name != "error"}
        if not table.columns:
            for name in shown:
                table.add_column(name, overflow="fold")
        table.add_row(*shown.values())
    console = Console(highlight=False, soft_wrap=True)
    console.print(table if table.columns else "no scan was found", markup=False)
    for error in errors:
        console.print(f"error: {one_line(error)}", markup=False)


def _once(said: list[str]) -> list[str]:
    """Drop lines whose reason was given by an earlier stage of the slide."""
    seen, lines = set[str](), []
    for line in said:
        reason = line.split(": ", 1)[1]
        if reason not in seen:
            seen.add(reason)
            lines.append(line)
    return lines


def show_checks(checks: "Iterable[Check]", as_json: bool) -> bool:
    """Print checks, one line each as they are done or one JSON array, and return whether all passed."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json:
            mark = "wrong" if not check.ok else "note" if check.todo else "ok"
            print(
                f"{mark:5}  {check.name}: {one_line(check.said + (f'; {check.todo}' if check.todo else ''))}",
                flush=True,
            )
    if as_json:
        print(json.dumps([asdict(c) for c in done], indent=1))
    return all(c.ok for c in done)


def say_what_next(home: Path, held_out: list[str]) -> None:
    """Print where the demo's results are, and what to try next."""
    slide = held_out[0]
    # As it was called: without an activated environment, the bare name would not be found.
    program = "stpath-assets" if shutil.which("stpath-assets") else os.path.relpath(sys.argv[0])
    print(
        f"""
Phantoms, simulated counts and demo weights: no patient, no biology. The weights were trained on phantom_A only;
{slide} is held out.

figures   {home / "figures"}
ask       {program} sql --home {home} "select gene, round(pearson_r, 2) r, n_spots from evaluation_metrics
              where slide_id = '{slide}' and protocol = 'tutorial:raw_log1p' order by r desc limit 10"
look      {program} view {slide} --home {home}
Dagster   make dev          (or: DAGSTER_HOME={home / "dagster"} STPATH_HOME={home} python -m stpath_assets.defs.dev)"""
    )
