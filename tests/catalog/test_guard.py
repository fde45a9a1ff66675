"""SQL that must not work, through each of the two layers alone, and SQL that must, through both.

`guard.check_statement` refuses a statement. `sandbox.lock` and `sandbox.run`, without it, leave no way to write, to read outside
the data root, or to reach a network, but for the ways that the cases name.
"""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.catalog.guard import MAX_CHARS, check_statement
from stpath_assets.catalog.sandbox import GRACE_S, Limits, Result, cap_memory, lock, run
from stpath_assets.errors import QueryError
from stpath_assets.storage.extensions import OFFLINE, load_extensions

LIMITS = Limits(memory="300MB", threads=2, seconds=1.0, rows=100_000, temp="100MB")
SECRET = "the-secret-of-another-user"
NETWORK = "network"
"""A way that gets through the second layer to the network: the guard alone stops it."""
CRASH = "crash"
"""A way that breaks DuckDB, which ends the process at its exit though nothing is written: the guard alone stops it."""


def build(root: Path) -> None:
    root.mkdir()
    with duckdb.connect(config=OFFLINE) as c:
        load_extensions(c, "sqlite_scanner", "ducklake")
        c.execute(
            f"attach 'ducklake:sqlite:{root}/lake.sqlite' as lake (data_path '{root}/tables/', meta_journal_mode 'WAL')"
        )
        c.execute("create schema lake.parts")
        c.execute("use lake.main")
        c.execute(
            "create table parts.t as select range::bigint i, 's' || range % 7 s, range * 0.5::double x, "
            "[1, 2, range]::float[] v, date '2024-01-01' + range::int d from range(100)"
        )
        c.execute("insert into parts.t values (1000, 'inlined', 1.5, [1, 2, 3], date '2025-01-01')")
        c.execute("create view tiles as select * from parts.t")
        c.execute("create macro lake.main.twice(a) as a * 2")


class Lab:
    """A lake, a secret and a canary outside of it, and a port that nobody should knock at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        build(self.root)
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "secret.csv").write_text(f"a\n{SECRET}\n")
        (self.canary / "secret.json").write_text(f'{{"a": "{SECRET}"}}')
        duckdb.sql(f"copy (select '{SECRET}' as a) to '{self.canary}/secret.parquet'")
        self.knocks = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def _answer(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            self.knocks += 1
            caller.close()

    def open(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config=OFFLINE)
        load_extensions(connection, "sqlite_scanner", "ducklake", "httpfs", "postgres_scanner")
        connection.execute(
            f"attach 'ducklake:sqlite:{self.root}/lake.sqlite' as lake "
            f"(read_only, data_path '{self.root}/tables/', override_data_path true)"
        )
        connection.execute("use lake.main")
        lock(connection, [f"{self.root}/tables/"], self.files, LIMITS, self.folder / "temp")
        return connection

    @property
    def files(self) -> list[str]:
        return [f"{self.root}/lake.sqlite{end}" for end in ("", "-wal", "-shm", "-journal")]

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """A locked connection, a new one where a case broke the last."""
        try:
            if self._connection is not None:
                assert run(self._connection, "select count(*) from tiles", LIMITS).fetchall() == [(101,)]
        except QueryError:
            self._connection = None
        if self._connection is None:
            self._connection = self.open()
        return self._connection

    def fill(self, sql: str) -> str:
        names = {"ROOT": self.root, "OUT": self.canary, "PORT": self.port}
        for name, value in names.items():
            sql = sql.replace(f"<{name}>", str(value))
        return sql

    def state(self) -> dict[str, str]:
        # SQLite writes down who reads a database in WAL mode.
        files = [p for folder in (self.root, self.canary) for p in folder.rglob("*") if p.is_file()]
        return {
            str(p): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
            if not p.name.endswith("-shm") and not (p.name.endswith("-wal") and p.stat().st_size == 0)
        }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.listener.close()


READERS = [
    "from '<OUT>/secret.csv'", 'from "<OUT>/secret.csv"', "from '<OUT>/secret.parquet'", "from '<OUT>/secret.json'",
    "from '<OUT>/*.csv'", "select * from '<ROOT>/tables/../../canary/secret.csv'",
    "from read_csv('<OUT>/secret.csv')", "from read_csv_auto('<OUT>/secret.csv')",
    "from read_text('<OUT>/secret.csv')",
    "from read_blob('<OUT>/secret.csv')", "from read_parquet('<OUT>/secret.parquet')",
    "from read_json('<OUT>/secret.json')",
    "from parquet_scan('<OUT>/secret.parquet')", "from read_json_auto('<OUT>/secret.json')",
    "from read_ndjson('<OUT>/secret.json')", "from read_json_objects('<OUT>/secret.json')",
    "from read_ndjson_objects('<OUT>/secret.json')", "from read_duckdb('<OUT>/x.duckdb')",
    "from read_text(['<OUT>/secret.csv'])", "from read_text('file://<OUT>/secret.csv')", "from glob('<OUT>/*')",
    "from sniff_csv('<OUT>/secret.csv')", "from parquet_metadata('<OUT>/secret.parquet')",
    "from parquet_schema('<OUT>/secret.parquet')", "from parquet_kv_metadata('<OUT>/secret.parquet')",
    "from parquet_file_metadata('<OUT>/secret.parquet')", "from parquet_full_metadata('<OUT>/secret.parquet')",
    "from parquet_bloom_probe('<OUT>/secret.parquet', 'a', 'x')",
    "from sqlite_scan('<OUT>/x.sqlite', 't')", "from sqlite_attach('<OUT>/x.sqlite')",
    "FROM Read_Text('<OUT>/secret.csv')", 'from "read_text"(\'<OUT>/secret.csv\')',
    "from main.read_text('<OUT>/secret.csv')",
    "from system.main.read_text('<OUT>/secret.csv')", "from read_text/**/('<OUT>/secret.csv')",
    "from read_text--\n('<OUT>/secret.csv')", "from tiles, read_text('<OUT>/secret.csv')",
    "from tiles, lateral (from read_text('<OUT>/secret.csv'))",
    "select (select content from read_text('<OUT>/secret.csv'))",
    "with a as (from read_text('<OUT>/secret.csv')) from a",
    "with a as materialized (from '<OUT>/secret.csv') from a",
    "select i from tiles where exists (from read_text('<OUT>/secret.csv') where content like '%secret%')",
    "select i from tiles order by (select content from read_text('<OUT>/secret.csv'))",
    "select 1 union all select content from read_text('<OUT>/secret.csv')",
    "select i from tiles limit (select size from read_text('<OUT>/secret.csv'))",
    "from tiles positional join read_text('<OUT>/secret.csv')", "from read_text('<OUT>/secret.csv') tablesample 100%",
    "from query('from read_text(''<OUT>/secret.csv'')')", "from query_table('<OUT>/secret.csv')",
    "from query_table(['<OUT>/secret.csv'])",
    "from histogram('<OUT>/secret.csv', 'a')",
    "from histogram_values('<OUT>/secret.csv', 'a')", "from query('from query(''from glob(''''<OUT>/*'''')'')')",
    "describe from read_csv('<OUT>/secret.csv')", "describe '<OUT>/secret.csv'", "summarize '<OUT>/secret.csv'",
    "summarize from read_csv('<OUT>/secret.csv')", "show '<OUT>/secret.csv'", "table '<OUT>/secret.csv'",
    "explain from read_csv('<OUT>/secret.csv')", "explain (format json) from '<OUT>/secret.csv'",
    "pivot '<OUT>/secret.csv' on a", "pivot '<OUT>/secret.csv' on a in ('x')",
    "pivot (from read_text('<OUT>/secret.csv')) on size",
    "with q as (from '<OUT>/secret.csv') pivot q on a", "unpivot '<OUT>/secret.csv' on a",
    "from (pivot '<OUT>/secret.csv' on a)",
    "pivot tiles on (select content from read_text('<OUT>/secret.csv')) using sum(x)",
    "pivot tiles on s using max((select content from read_text('<OUT>/secret.csv')))",
    "pivot tiles on s in (select content from read_text('<OUT>/secret.csv')) using sum(x)",
    "select list_transform([1], x -> (select content from read_text('<OUT>/secret.csv')))",
    "select [c for c in (select list(content) from read_text('<OUT>/secret.csv'))]",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''<OUT>/secret.csv'')'))",
    "select json_serialize_plan('from read_csv(''<OUT>/secret.csv'')', optimize := true)",
    "from parts.csv", "from lake.parquet", "from main.json", "select content from\u00a0read_text('<OUT>/secret.csv')",
    "values ((select content from read_text('<OUT>/secret.csv')))", "from (values (1)) v, '<OUT>/secret.csv'",
    "select twice((select max(content) from read_text('<OUT>/secret.csv')))",
    "select lake.main.twice((select size from read_text('<OUT>/secret.csv')))",
    "select columns(c -> c = (select content from read_text('<OUT>/secret.csv'))) from tiles",
    "with recursive r as (select content from read_text('<OUT>/secret.csv') union all from r) from r limit 1",
    "select sum(x) filter (exists (from read_text('<OUT>/secret.csv'))) over (partition by (select 1)) from tiles",
]  # fmt: skip

WRITERS = [
    "copy tiles to '<OUT>/x.csv'", "copy (select 1) to '<OUT>/x.parquet' (format parquet)",
    "copy (select 1) to '<ROOT>/tables/x.csv'",
    "copy (select 1 a) to '<ROOT>/tables/p' (partition_by a, format csv)",
    "copy (select 1) to '<ROOT>/lake.sqlite-journal'",
    "copy (select 1) to '<ROOT>/lake.sqlite'", "copy parts.t from '<OUT>/secret.csv'",
    "copy from database lake to memory",
    "insert into parts.t select * from parts.t", "insert into lake.parts.t values (1, 'a', 1, [1], today())",
    "update parts.t set i = 0", "delete from parts.t", "truncate parts.t", "drop table parts.t", "drop view tiles",
    "merge into parts.t using (select 1 i) s on t.i = s.i when matched then delete",
    "create table a as select 1", "create table lake.parts.a (i int)", "create temp table a as select 1",
    "create table memory.main.a as select 1", "create view a as select 1", "create or replace view tiles as select 1",
    "create macro f(a) as a", "create type e as enum ('a')", "create schema lake.q", "create sequence q",
    "create index q on parts.t (i)", "create secret s (type s3, key_id 'a', secret 'b')", "drop secret s",
    "create persistent secret s (type s3)", "alter table parts.t add column q int", "comment on table parts.t is 'x'",
    "attach '<OUT>/x.duckdb' as x", "attach '<OUT>/x.sqlite' as x (type sqlite)", "attach ':memory:' as x",
    "attach '<ROOT>/lake.sqlite' as x (type sqlite)", "attach 'ducklake:sqlite:<ROOT>/lake.sqlite' as x",
    "attach 'ducklake:<OUT>/x.ducklake' as x", "detach lake", "use memory", "set threads = 1", "reset memory_limit",
    "set variable q = 1", "set search_path = 'main'", "set lock_configuration = false",
    "set enable_external_access = true",
    "set session allowed_directories = ['/']", "pragma enable_profiling", "pragma threads = 4",
    "pragma database_list",
    "pragma import_database('<OUT>')", "export database '<OUT>/x'", "import database '<OUT>'",
    "install spatial", "force install httpfs", "load httpfs", "load '<OUT>/x.duckdb_extension'", "update extensions",
    "checkpoint", "force checkpoint lake", "vacuum", "analyze", "begin", "commit", "rollback",
    "prepare p as select 1",
    "execute p", "deallocate p", "call pragma_version()", "call lake.set_option('a', 'b')", "call enable_logging()",
    "call sqlite_attach('<ROOT>/lake.sqlite')", "call force_checkpoint('lake')",
    "call ducklake_merge_adjacent_files('lake')",
    "select 1; drop table parts.t", "select 1; select 2", ";select 1;; delete from parts.t;",
    "drop table parts.t; select 1",
    "create table q as select 1; pivot tiles on s", "pivot tiles on s; drop view tiles",
    "select 1;\u00a0drop view tiles",
    "explain analyze copy (select 1) to '<ROOT>/tables/x.csv'", "explain (analyze) delete from parts.t",
    "explain drop view tiles",
    "explain copy (select 1) to '<ROOT>/tables/x.csv'", "explain analyze select 1",
    "explain (analyze, format json) select 1",
    "explain /* */ analyze copy (select 1) to '<ROOT>/tables/x.csv'", "explain select 1; drop view tiles",
    "with a as (delete from parts.t returning *) from a", "/* select */ drop view tiles",
    "-- select 1\ndrop view tiles",
    "from sqlite_query('__ducklake_metadata_lake', 'delete from ducklake_table returning 1')",
    "from sqlite_query('__ducklake_metadata_lake', 'select * from ducklake_table')",
    "from sqlite_query('__ducklake_metadata_lake', 'vacuum into ''<OUT>/x.sqlite''')",
    "from sqlite_query('lake', 'select 1')", "from sqlite_scan('<ROOT>/lake.sqlite', 'ducklake_table')",
    "from sqlite_attach('<ROOT>/lake.sqlite', overwrite := true)", "from read_blob('<ROOT>/lake.sqlite')",
    "from glob('<ROOT>/tables/**')", "from read_parquet('<ROOT>/tables/**/*.parquet')",
    "from '<ROOT>/tables/parts/t/*.parquet'",
    "from ducklake_set_option('lake', 'parquet_compression', 'zstd')",
    "from lake.set_option('parquet_compression', 'zstd')",
    "from ducklake_expire_snapshots('lake', older_than => now())",
    "from ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "from ducklake_delete_orphaned_files('lake', cleanup_all => true)", "from ducklake_flush_inlined_data('lake')",
    "from ducklake_add_data_files('lake', 't', '<OUT>/secret.parquet', schema => 'parts')",
    "from ducklake_merge_adjacent_files('lake')", "from ducklake_rewrite_data_files('lake', 't')",
    "from ducklake_commit('lake')",
    "from ducklake_set_commit_message('lake', 'a', 'b')", "from lake.merge_adjacent_files()",
    "from lake.main.flush_inlined_data()",
    "from ducklake_list_files('lake', 't', schema => 'parts')", "from ducklake_options('lake')",
    "from ducklake_settings('lake')",
    "from enable_logging()",
    "from enable_profiling()", "from disable_logging()", "from truncate_duckdb_logs()", "from checkpoint('lake')",
    "from force_checkpoint()", "select write_log('x')", "select nextval('q')", "select sleep_ms(10)",
    "select pg_sleep(0.01)",
    "from __ducklake_metadata_lake.ducklake_data_file", 'from "__ducklake_metadata_lake".main.ducklake_schema',
    "from memory.main.a", "from temp.a", "from system.main.pg_settings", "from pg_settings",
    "from pg_catalog.pg_settings",
    "from duckdb_settings()", "from duckdb_secrets()", "from duckdb_databases()", "from duckdb_databases",
    "from pragma_database_list",
    "from duckdb_logs", "from duckdb_extensions()", "from duckdb_temporary_files()",
    "from duckdb_external_file_cache()",
    "from which_secret('s3://x', 's3')", "select current_setting('temp_directory')",
    "select main.current_setting('secret_directory')",
    "select lake.current_setting() from (select 'temp_directory' as lake)", "from pragma_storage_info('parts.t')",
    "select getenv('HOME')", "from seq_scan('t')", "from arrow_scan(0, 0, 0)", "from pandas_scan(0)",
    "from python_map_function(0)", "from test_all_types()", "select no_such_function(1)", "show tables from memory",
]  # fmt: skip

NETWORKED = [
    ("from 'http://127.0.0.1:<PORT>/x.csv'", ""), ("from read_text('http://127.0.0.1:<PORT>/x')", ""),
    ("from read_parquet('https://127.0.0.1:<PORT>/x.parquet')", ""), ("from read_csv('s3://127.0.0.1:<PORT>/x.csv')", ""),
    ("from 'hf://datasets/a/b/c.csv'", ""), ("from 'gcs://a/b.csv'", ""), ("from glob('s3://a/*')", ""),
    ("from read_text('s3://a/b?s3_endpoint=127.0.0.1:<PORT>&s3_use_ssl=false&s3_url_style=path')", ""),
    ("copy (select 1) to 's3://a/b?s3_endpoint=127.0.0.1:<PORT>'", ""),
    ("attach 'http://127.0.0.1:<PORT>/x.duckdb' as x", ""),
    ("attach 'host=127.0.0.1 port=<PORT> connect_timeout=1' as x (type postgres)", ""),
    ("attach 'ducklake:postgres:host=127.0.0.1 port=<PORT> connect_timeout=1' as x", ""),
    ("install spatial from 'http://127.0.0.1:<PORT>'", ""),
    ("from postgres_query('host=127.0.0.1 port=<PORT>', 'select 1')", ""),
    ("from postgres_execute('host=127.0.0.1 port=<PORT>', 'select 1')", ""),
    ("from postgres_scan('host=127.0.0.1 port=<PORT> connect_timeout=1', 'public', 't')", NETWORK),
    ("from postgres_scan_pushdown('host=127.0.0.1 port=<PORT> connect_timeout=1', 'public', 't')", NETWORK),
    ("from postgres_attach('host=127.0.0.1 port=<PORT> connect_timeout=1')", NETWORK),
]  # fmt: skip

BREAKING = [("from enable_logging('QueryLog', storage => 'file', storage_config => {'path': '<OUT>/log'})", CRASH)]

MISUSE = [(sql, "") for sql in READERS + WRITERS] + NETWORKED + BREAKING


def test_there_are_enough_ways() -> None:
    assert len(MISUSE) == len({sql for sql, _ in MISUSE}) > 200


def one_line_of(error: pytest.ExceptionInfo[QueryError]) -> str:
    said = str(error.value)
    assert said
    assert said.isprintable()
    return said


@pytest.mark.parametrize("sql", [sql for sql, _ in MISUSE])
def test_the_guard_refuses(lab: Lab, sql: str) -> None:
    with pytest.raises(QueryError) as error:
        check_statement(lab.fill(sql))
    one_line_of(error)


@pytest.mark.parametrize(("sql", "way"), [case for case in MISUSE if case[1] != CRASH])
def test_the_sandbox_alone_lets_nothing_in_or_out(lab: Lab, sql: str, way: str) -> None:
    connection, before, knocks = lab.connection, lab.state(), lab.knocks
    began = time.monotonic()
    try:
        said = str(run(connection, lab.fill(sql), LIMITS).fetchall())
    except QueryError as e:
        said = str(e)
        assert said.isprintable()
    assert time.monotonic() - began < LIMITS.seconds + GRACE_S + 1
    assert SECRET not in said
    assert lab.state() == before
    assert (lab.knocks > knocks) == (way == NETWORK)


def test_a_variable_of_the_program_is_no_table(lab: Lab) -> None:
    frame = pa.table({"a": [SECRET]})
    assert frame.num_rows == 1
    with pytest.raises(QueryError, match="frame does not exist"):
        run(lab.connection, check_statement("from frame"), LIMITS)


def test_a_locked_connection_alone_still_copies_into_its_folders(lab: Lab) -> None:
    """What `lock` documents: `run` looks at the kind of a statement because of it."""
    path = lab.root / "tables" / "left.csv"
    with lab.open() as connection:
        connection.execute(f"copy (select 1) to '{path}'")
    assert path.read_text().split() == ["1", "1"]
    path.unlink()


GOOD = [
    "select 1", "select 1;", " -- a comment\n select count(*) from tiles /* all */ ; ", "from tiles", "table tiles",
    "values (1), (2)",
    "from tiles select s, count(*) group by all order by all", "select * from lake.parts.t", "from parts.t",
    "from lake.tiles",
    "select * from lake.main.tiles limit 3", "describe tiles", "describe select 1", "summarize tiles", "show tables",
    "show all tables",
    "show tables from lake.parts", "explain select * from tiles where i > 5", "explain (format json) from tiles",
    "with a as (select i from tiles), b as (from a where i > 3) from b", 'with "my cte" as (select 1) from "my cte"',
    "with recursive r(n) as (select 1 union all select n + 1 from r where n < 10) select sum(n) from r",
    "select i, row_number() over (partition by s order by i), lag(x) over w from tiles window w as (order by i)",
    "select i from tiles qualify row_number() over (partition by s order by i) = 1",
    "pivot tiles on s using sum(x) group by d", "pivot tiles on s in ('s1', 's2') using avg(x)",
    "pivot (select s, x from tiles) on s",
    "with q as (from tiles where i < 50) pivot q on s using sum(x), count(*) order by all limit 2",
    "pivot tiles on s, i % 2 using count(*)",
    "from (pivot (select s, x from tiles) on s using sum(x))",
    "with p as (pivot (select s, x from tiles) on s) from p",
    "describe pivot tiles on s using sum(x)", "from tiles pivot (sum(x) for s in ('s1', 's2'))",
    "unpivot (select i, x::bigint y from tiles) on i, y into name n value v", "from tiles unpivot (v2 for n in (x))",
    "select [a + 1 for a in v if a > 1] from tiles", "select list_transform(v, lambda a: a * 2) from tiles",
    "select v[1:2] from tiles",
    "select list_sum(list_filter(v, a -> a > 1)) from tiles",
    "select {'a': i, 'b': s}.a, map {'k': i}['k'] from tiles",
    "select json_object('a', i)->>'$.a', json_extract('[1]', '$[0]') from tiles", "from json_each('[1, 2]')",
    "select regexp_extract(s, '(\\d+)', 1), regexp_replace(s, 's', 't') from tiles where regexp_matches(s, '^s')",
    "select a.i, b.x from tiles a asof join tiles b on a.i >= b.i",
    "from tiles a positional join tiles b select count(*)",
    "select * from parts.t at (version => 2)", "select count(*) from parts.t at (timestamp => now())",
    "from lake.snapshots()",
    "select table_name from information_schema.tables", "select column_name from information_schema.columns",
    "from pg_catalog.pg_class",
    "select view_name, sql from duckdb_views() where not internal",
    "from duckdb_columns() where table_name = 'tiles'",
    "select lake.main.twice(i) from tiles",
    "select array_cosine_similarity(v::float[3], [1, 2, 3]::float[3]) from tiles",
    "select quantile_cont(x, 0.5), median(x), approx_quantile(x, 0.9), mode(s), arg_max(s, x) from tiles",
    "select date_trunc('month', d), d + interval 3 day, strftime(d, '%Y'), extract(year from d), age(d) from tiles",
    "select now(), current_timestamp, current_date, d at time zone 'Europe/Berlin' from tiles",
    "select columns('^[ix]$') from tiles", "select min(columns(* exclude (v, d, s))) from tiles",
    "select * exclude v from tiles",
    "select * replace (i + 1 as i) rename (s as t) from tiles", "select 1 as a union by name select 2 as b",
    "from tiles using sample 10",
    "from tiles tablesample 100%", "select i from tiles except select 3", "from tiles, unnest(v) u(e) select sum(e)",
    "from range(3)",
    "select s, sum(x) from tiles group by rollup (s)",
    "select coalesce(null, 1), ifnull(1, 2), nullif(1, 2), if(true, 1, 2), try(1)",
    "select case when i > 3 then 'a' else 'b' end, i between 1 and 2, i in (1, 2), s like 's%', s ilike 'S%' from tiles",
    "select random(), uuid(), hash(i), md5(s), levenshtein(s, 'abc') from tiles limit 1",
    "select s.upper().lower() from tiles",
    "select string_agg(s, ',' order by i), list(i), histogram(s), count(distinct s) filter (i > 3) from tiles",
    "select (select max(i) from tiles) as most, exists (from tiles) as any",
    "select cast(i as varchar), x::decimal(10, 2) from tiles",
    "from tiles t, lateral (select t.i + 1 as j) select j", "select struct_pack(a := 1), row(1, 2), (1, 2)",
    "select 'é', '🔬', 'drop table x;'",
]  # fmt: skip


@pytest.mark.parametrize("sql", GOOD)
def test_a_reading_statement_works(lab: Lab, sql: str) -> None:
    before = lab.state()
    with run(lab.connection, check_statement(sql), LIMITS) as result:
        assert result.fetchall()
    assert lab.state() == before


def test_a_pivot_is_as_duckdb_makes_it(lab: Lab) -> None:
    sql = "pivot (select s, i from tiles where i < 7) on s using sum(i)"
    assert run(lab.connection, check_statement(sql), LIMITS).columns == [f"s{k}" for k in range(7)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "give one SQL statement"),
        (" -- nothing\n;", "give one SQL statement"),
        ("select 1; select 2", "not 2"),
        ("selec 1", "syntax error"),
        ("drop table parts.t", "DROP"),
        ("from 'x.parquet'", "files and addresses are not read"),
        ("from read_text('x')", "read_text"),
        ("from __ducklake_metadata_lake.x", "not part of the lake"),
        ("select getenv('HOME')", "getenv"),
        ("explain analyze select 1", "EXPLAIN ANALYZE runs"),
        ("pivot tiles on s in (select s from tiles)", "write its values"),
        ("select " + "x," * MAX_CHARS, "characters"),
        ("select '" + "x" * 10_000_000 + "'", "characters"),
        ("select " + "abs(" * 900 + "1" + ")" * 900, "depth"),
        ("select * from (" * 900 + "select 1" + ")" * 900, "depth"),
        ("select " + "[" * 20_000, "memory exhausted"),
        ("select 1\0; drop table x", "not text"),
        ("select '\ud800'", "not text"),
        ("sel\u200bect 1\x1b[31m", "syntax error"),
    ],
)
def test_a_refusal_says_what_is_wrong(sql: str, says: str) -> None:
    with pytest.raises(QueryError) as error:
        check_statement(sql)
    assert says in one_line_of(error)


def test_long_chains_are_read(lab: Lab) -> None:
    sql = " union all ".join(["select 1"] * 300)
    assert len(run(lab.connection, check_statement(sql), LIMITS).fetchall()) == 300


space = st.text(st.sampled_from(" \t\n\r"), min_size=1, max_size=4)
gap = st.one_of(space, st.text("ab '\";(", max_size=5).map(lambda t: f" /*{t}*/ "), st.just(" -- '\"\n"))
refused = ["from read_text ( '/etc/passwd' )", "drop table parts.t", "copy tiles to 'x'", "select getenv ( 'HOME' )",
           "from glob ( '*' )", "pivot read_csv ( 'x' ) on a using sum ( b )", "explain analyze select 1",
           "select 1 ; drop view tiles", "from '/etc/passwd'", "from __ducklake_metadata_lake.x"]  # fmt: skip


@given(st.data(), st.sampled_from(refused))
@settings(max_examples=150, deadline=None)
def test_space_comments_and_case_change_no_refusal(data: st.DataObject, sql: str) -> None:
    words = [w if "'" in w else data.draw(st.sampled_from([w, w.upper(), w.title()])) for w in sql.split()]
    text = data.draw(gap) + "".join(word + data.draw(gap) for word in words)
    with pytest.raises(QueryError):
        check_statement(text)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_answered_or_refused_in_one_line(text: str) -> None:
    try:
        said = check_statement(text)
    except QueryError as e:
        said = str(e)
        assert said.isprintable()
    assert said


# ---- limits

ENDLESS = [
    ("select count(*) from range(1000000000000)", "STPATH_SQL_SECONDS"),
    ("select * from range(1000000000000)", "STPATH_SQL_ROWS"),
    ("select repeat('x', 10000000000)", "maximum supported string size"),
    ("select list(range) from range(1e10::bigint)", "STPATH_SQL_"),
    ("select repeat(range::varchar, 500000000) from range(10)", "STPATH_SQL_MEMORY"),
    ("select count(*) from range(100000000) a, range(100000000) b where a.range * b.range % 7 = 1", "STPATH_SQL_"),
    ("with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r", "STPATH_SQL_SECONDS"),
    ("with recursive r(n) as (select 1 union all select n + 1 from r) from r", "STPATH_SQL_"),
    ("select count(distinct a.range * b.range) from range(100000) a, range(100000) b", "STPATH_SQL_"),
    ("select range from range(100000000) order by hash(range)", "STPATH_SQL_"),
]


@pytest.mark.parametrize(("sql", "says"), ENDLESS)
def test_what_would_not_end_is_ended(lab: Lab, sql: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(QueryError, match=says) as error:
        run(lab.connection, check_statement(sql), LIMITS).fetchall()
    one_line_of(error)
    assert time.monotonic() - began < LIMITS.seconds + GRACE_S + 2
    assert run(lab.connection, "select 42", LIMITS).fetchall() == [(42,)]


HUGE_VALUES = """
import time
from stpath_assets.catalog.sandbox import *
from stpath_assets.errors import QueryError
connection, limits = duckdb.connect(), Limits(memory="200MB", threads=2, seconds=1, temp="10MB")
connection.execute("set memory_limit = '200MB'")
with cap_memory(limits):
    before = psutil.Process().memory_info().rss
    for sql in ("select range(1000000000)", "select unnest(range(0, 300000000))", "select repeat('x', 4000000000)",
                "select levenshtein(repeat('ab', 60000), repeat('ba', 60000))"):
        began = time.monotonic()
        try:
            run(connection, sql, limits).fetchall()
        except QueryError as e:
            print(sql, str(e)[:60], flush=True)
        assert time.monotonic() - began < limits.seconds + GRACE_S + 2, sql
    assert psutil.Process().memory_info().rss - before < 600e6
assert run(connection, "select 42", limits).fetchall() == [(42,)]
connection.close()
print("alive")
"""


def test_one_huge_value_is_left_behind_and_the_process_lives_and_ends() -> None:
    done = subprocess.run([sys.executable, "-c", HUGE_VALUES], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["alive"]), done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_more_rows_than_allowed_are_refused_not_cut(lab: Lab) -> None:
    few = Limits(rows=100)
    assert run(lab.connection, "from tiles limit 100", few).to_arrow().num_rows == 100
    for read in (Result.fetchall, Result.to_arrow, lambda r: list(r.batches())):
        with pytest.raises(QueryError, match=r"more than 100 rows.*STPATH_SQL_ROWS"):
            read(run(lab.connection, "from tiles", few))


def test_a_result_has_columns_types_and_batches(lab: Lab) -> None:
    with run(lab.connection, "select i, s, v from tiles order by i", LIMITS) as result:
        assert (result.columns, result.types) == (["i", "s", "v"], ["BIGINT", "VARCHAR", "FLOAT[]"])
        assert sum(b.num_rows for b in result.batches()) == 101
    with pytest.raises(QueryError, match="closed or read before"):
        result.fetchall()


def test_the_time_between_fetches_is_not_counted(lab: Lab) -> None:
    batches = run(lab.connection, "from range(50000)", Limits(seconds=0.5)).batches()
    next(batches)
    time.sleep(0.7)
    assert sum(b.num_rows for b in batches) > 0


def test_an_error_is_one_line(lab: Lab) -> None:
    with pytest.raises(QueryError) as error:
        run(lab.connection, "select\n  no_such_column\nfrom tiles", LIMITS)
    assert "no_such_column" in one_line_of(error)
    assert "LINE" not in str(error.value)


def test_what_was_inlined_later_is_read_while_locked(lab: Lab, tmp_path: Path) -> None:
    """The attached metadata stays readable, also what a writer adds after the lock, and without naming its files."""
    build(tmp_path / "root")
    attached = f"attach 'ducklake:sqlite:{tmp_path}/root/lake.sqlite' as lake"
    reader, writer = duckdb.connect(config=OFFLINE), duckdb.connect(config=OFFLINE)
    for connection in (reader, writer):
        load_extensions(connection, "sqlite_scanner", "ducklake")
    reader.execute(f"{attached} (read_only, data_path '{tmp_path}/root/tables/', override_data_path true)")
    reader.execute("use lake.main")
    lock(reader, [f"{tmp_path}/root/tables/"], [], LIMITS, tmp_path / "temp")
    writer.execute(attached)
    writer.execute("insert into lake.parts.t select i + 5000, s, x, v, d from lake.parts.t")
    assert run(reader, "select count(*) from tiles", LIMITS).fetchall() == [(202,)]


def test_capped_gives_the_memory_back() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with cap_memory(Limits(memory="1GB")):
        pass
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(QueryError, match="not a size"), cap_memory(Limits(memory="a lot")):
        pass
