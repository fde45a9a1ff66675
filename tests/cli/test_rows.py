"""A table fits the terminal and says what it leaves out; other forms hold every value."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stpath_assets.cli.rows import SHOWN, cell, table_lines
from stpath_assets.storage import Store
from tests.catalog.cohorts import draw, store_slide
from tests.roots import command

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-10**12, 10**12), st.floats(), st.text(max_size=80),
    st.lists(st.floats(width=32), max_size=12),
)  # fmt: skip


@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(
        st.lists(st.text(min_size=1, max_size=20), min_size=n, max_size=n),
        st.lists(st.lists(VALUES, min_size=n, max_size=n), max_size=4),
    )),
    st.integers(40, 120),
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal(table: tuple[list[str], list[list[object]]], width: int) -> None:
    names, rows = table
    lines = table_lines(names, rows, len(rows), width)
    assert all(cell_len(line) <= width for line in lines)
    assert all(c.isprintable() for line in lines for c in line)
    assert lines[-1] == f"{len(rows)} row{'s' * (len(rows) != 1)}"


def test_columns_that_do_not_fit_are_named() -> None:
    names = [f"column_{i}" for i in range(12)]
    lines = table_lines(names, [[i] * 12 for i in range(2)], 2, 80)
    shown = lines[0].split()
    assert shown == names[: len(shown)]
    assert 3 < len(shown) < 12
    assert " ".join(lines[4:-1]) == f"{12 - len(shown)} more columns (--wide shows all): " + ", ".join(
        names[len(shown) :]
    )


def test_columns_without_a_value_give_way_first() -> None:
    names, row = [f"column_{i}" for i in range(12)], [1, None] * 6
    lines = table_lines(names, [row, row], 2, 80)
    assert lines[0].split() == names[::2]
    assert lines[-2].startswith("NULL in all rows: column_1, ")
    assert table_lines(["a", "b"], [[1, None], [2, None]], 2, 80)[0].split() == ["a", "b"], "there is room"


def test_one_row_that_does_not_fit_stands() -> None:
    names = [f"column_{i}" for i in range(12)]
    lines = table_lines(names, [list(range(12))], 1, 80)
    assert lines == [*(f"{name.ljust(9)}  {i}" for i, name in enumerate(names)), "1 row"]


def test_wide_shows_everything() -> None:
    names, row = [f"column_{i}" for i in range(40)], ["x" * 70] * 40
    lines = table_lines(names, [row, row], 2, None)
    assert lines[0].split() == names
    assert "x" * 70 in lines[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "NULL"), (True, "true"), (0.123456789, "0.123457"), (1e-9, "1e-09"), (12, "12"),
        ([0.5] * 1536, "[0.5, 0.5, 0.5, … 1,536 values]"), ([1, 2], "[1, 2]"), ("a" * 64, "aaaaaaaa…"),
        ("/scans/of/a/long/path/to/the/slide/section.svs", "…of/a/long/path/to/the/slide/section.svs"),
        ("x\x1b[31m", "x\\x1b[31m"), ("word " * 20, "word word word word word word word word…"),
    ],
)  # fmt: skip
def test_a_value_in_a_table(value: object, shown: str) -> None:
    assert cell(value, 40) == shown
    assert cell_len(shown) <= 40


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("rows") / "root")
    for slide_id in ("a", "b"):
        store_slide(store, draw(slide_id, 1))
    return store.home


def test_what_a_newcomer_types_first_reads_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = command("sql", "--home", home, "select * from slides")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:6] == ["slide_id", "organ", "status", "patient_id", "mpp", "width_px"]
    assert lines[2].split()[:3] == ["a", "Breast", "ready"]
    assert any(line.startswith("NULL in all rows: tech, cohort, reason") for line in lines)
    assert lines[-1] == "2 rows"
    wide = command("sql", "--home", home, "--wide", "select * from slides").output
    assert "0" * 64 in wide
    assert "asked_context" in wide.splitlines()[0]


def test_the_true_number_of_rows(home: Path) -> None:
    said = command("sql", "--home", home, "select i from range(1234) t(i)").output.splitlines()
    assert len(said) == SHOWN + 3
    assert said[-1] == f"1,234 rows, the first {SHOWN} shown; --format csv prints all"
    assert command("sql", "--home", home, "select 1 where false").output.splitlines()[-1] == "0 rows"


def test_forms_for_programs(home: Path) -> None:
    query = "select slide_id, tile_id, expression_log1p, model from tile_expression where gene = 'ERBB2' order by all"
    said = {f: command("sql", "--home", home, "--format", f, query) for f in ("csv", "json", "parquet", "arrow")}
    rows = json.loads(said["json"].output)
    assert len(said["csv"].output.splitlines()) == len(rows) + 1
    assert (
        pq.read_table(io.BytesIO(said["parquet"].stdout_bytes)).to_pylist()
        == pa.ipc.open_stream(said["arrow"].stdout_bytes).read_all().to_pylist()
    )
    assert pa.ipc.open_stream(said["arrow"].stdout_bytes).read_all().num_rows == len(rows)
    empty = command("sql", "--home", home, "--format", "arrow", "select 1 as a where false")
    assert pa.ipc.open_stream(empty.stdout_bytes).read_all().num_rows == 0


def test_a_statement_from_a_file_or_stdin(home: Path, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("select count(*) as n\nfrom slides;\n")
    expected = command("sql", "--home", home, "--format", "csv", "select count(*) as n from slides").output
    assert command("sql", "--home", home, "--format", "csv", tmp_path / "q.sql").output == expected
    from click.testing import CliRunner

    from stpath_assets.cli import main

    for words in (["-"], []):
        done = CliRunner().invoke(
            main, ["sql", "--home", str(home), "--format", "csv", *words], input="select count(*) as n from slides"
        )
        assert done.output == expected


def test_a_file_that_is_no_text_is_one_line(home: Path, tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_bytes(b"\xff\xfe select")
    done = command("sql", "--home", home, tmp_path / "q.sql")
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.endswith("q.sql: is not text in UTF-8; save the statement as text\n")
    missing = command("sql", "--home", home, "nothing.sql")
    assert (missing.exit_code, missing.output) == (1, "error: nothing.sql: No such file or directory\n")


def test_the_schema_is_that_of_the_page(home: Path) -> None:
    whole = command("sql", "--schema")
    assert whole.exit_code == 0
    one = command("sql", "--schema", "hotspots").output
    assert one.startswith("hotspots(slide, gene_symbol): one row is")
    assert "gi_z" in one
    assert one in whole.output + "\n"
    wrong = command("sql", "--schema", "hotspot")
    assert (wrong.exit_code, wrong.output) == (1, "error: hotspot: there is no such view; did you mean hotspots\n")
