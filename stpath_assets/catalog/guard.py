"""Decides whether an SQL statement may be run: exactly one that only reads the lake.

DuckDB's own parser classifies the statement. Nothing is run, and the caller's connection is not used. Limits on what a
statement can reach while it runs are in `sandbox`. Each of the two modules protects the lake without the other.
"""

import json
import re
import threading
import uuid
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import duckdb

from stpath_assets import errors
from stpath_assets.catalog.views import MACROS
from stpath_assets.errors import QueryError
from stpath_assets.storage.extensions import OFFLINE

MAX_CHARS = 100_000
"""Maximum length of a statement. DuckDB binds a chain of UNIONs in quadratic time, which cannot be interrupted."""

_MAX_DEPTH = 250

_CATALOGS = {"", "lake", "system"}
_SCHEMAS = {"", "lake", "main", "parts", "system", "information_schema", "pg_catalog"}
_LAKE_SCHEMAS = {"lake", "main", "parts"}
_HIDDEN = {"duckdb_databases", "duckdb_logs", "pragma_database_list", "pg_settings", "pg_prepared_statements"}
"""DuckDB views that show settings, paths or the address of the metadata."""

_NAME = re.compile(r"[\w $-]+")
_FILE_TYPES = {
    "parquet", "csv", "tsv", "json", "jsonl", "ndjson", "geojson", "db", "ddb", "duckdb", "xlsx", "arrow", "avro",
    "vortex", "txt", "gz", "zst", "bz2",
}  # fmt: skip
"""If a table parts.csv does not exist, DuckDB reads the file of that name."""

_REFS = {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF"}
_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_SHOWN = {"tables", "schemas", "databases", "variables", "__show_tables_expanded"}

_TABLE_FUNCTIONS = {
    "unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "summary",
    "duckdb_tables", "duckdb_views", "duckdb_columns", "duckdb_functions", "duckdb_types",
    "duckdb_schemas", "duckdb_constraints", "duckdb_keywords", "pragma_version", "pg_timezone_names",
    "icu_calendar_names",
}  # fmt: skip
"""Without histogram and histogram_values, which are macros over query_table, which reads a file of the given name."""
_LAKE_TABLE_FUNCTIONS = {"snapshots", "current_snapshot", "last_committed_snapshot"}

_OF_MACROS = {("", ""), ("main", ""), ("lake", ""), ("main", "lake")}
"""Schema and catalog by which the lake's own macros are called."""

_REFUSED_FUNCTIONS = {
    "current_setting", "getenv", "write_log", "sleep_ms", "pg_sleep", "nextval", "currval", "stats",
    "json_serialize_plan", "json_execute_serialized_sql", "finalize", "combine", "parse_duckdb_log_message",
    "create_sort_key",
}  # fmt: skip
_HARMLESS_FUNCTIONS = {"random", "setseed", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "error", "unnest"}
"""Harmless functions that DuckDB counts as having side effects, or does not list."""

_EXPLAIN = re.compile(r"\s*\(\s*format\s+'?(json|text|default|html|yaml|graphviz|mermaid)'?\s*\)", re.I)

_lock = threading.Lock()


def check_statement(sql: str) -> str:
    """Return the statement to run, if it is one SELECT, VALUES, FROM, TABLE, DESCRIBE, SUMMARIZE, SHOW, PIVOT or an EXPLAIN
    of one.

    A function that the lake defines is written `lake.main.name(...)`. Raises `QueryError` if the text is not SQL, is more
    than one statement, would write, or would read anything but the lake.
    """
    if len(sql) > MAX_CHARS:
        raise QueryError(f"the statement has {len(sql):,} characters, more than {MAX_CHARS:,}; split it")
    if "\0" in sql or any("\ud800" <= c <= "\udfff" for c in sql):
        raise QueryError("the statement holds a character that is not text; write it again")
    explain, body = _split_explain(sql)
    tree = _parsed(body)
    if tree.get("error") and tree.get("error_type") == "not implemented" and not explain:
        tree = _of_dynamic_pivot(body) or tree
    if tree.get("error"):
        raise QueryError(_refusal(sql, tree))
    if len(tree["statements"]) != 1:
        raise QueryError(f"give one SQL statement, not {len(tree['statements'])}")
    _check_tree(tree["statements"][0])
    return f"{explain}{body}".strip()


def one_line(text: str, limit: int = 400) -> str:
    """Return DuckDB's error text as one line, without its excerpt of the statement and without control characters."""
    said = errors.one_line(re.split(r"\n\s*LINE \d+:", text)[0])
    return said if len(said) <= limit else f"{said[:limit]}…"


def tables_of(sql: str) -> set[str]:
    """Return the names of views and macros that a statement reads, in lower case; empty if it cannot be parsed."""
    nodes = list(_nodes(_tree_of(sql)))
    tables = {str(n.get("table_name", "")).lower() for n in nodes if n.get("type") == "BASE_TABLE"}
    functions = {str(n["function"]["function_name"]).lower() for n in nodes if n.get("type") == "TABLE_FUNCTION"}
    return tables | functions


def constants_of(sql: str, column: str, parameters: Collection[str] = ()) -> list[str]:
    """Return the texts that a statement compares a column with, by `=` or IN, or gives to macros as these parameters."""
    found = set[str]()
    for node in _nodes(_tree_of(sql)):
        values: list[Any] = []
        if node.get("type") in ("COMPARE_EQUAL", "COMPARE_IN", "OPERATOR_IN"):
            sides = [s for s in (node.get("left"), node.get("right"), *(node.get("children") or [])) if s]
            if any((s.get("column_names") or [""])[-1].lower() == column for s in sides):
                values = sides
        elif node.get("type") == "TABLE_FUNCTION":
            call = node["function"]
            macro = MACROS.get(str(call["function_name"]).lower())
            names = [name for name, _, _ in macro.parameters] if macro else []
            values = [v for name, v in zip(names, call.get("children") or [], strict=False) if name in parameters]
        texts = [n.get("value", {}).get("value") for n in _nodes(values) if n.get("type") == "VALUE_CONSTANT"]
        found |= {t for t in texts if isinstance(t, str)}
    return sorted(found)


def has_alternatives(sql: str) -> bool:
    """Return whether a statement may have rows though a comparison in it never holds: by OR, NOT, CASE, FILTER or UNION."""
    others = {"CONJUNCTION_OR", "OPERATOR_NOT", "CASE_EXPR", "SET_OPERATION_NODE"}
    return any(str(n.get("type")) in others or n.get("filter") for n in _nodes(_tree_of(sql)))


def _tree_of(sql: str) -> dict[str, Any]:
    try:
        return _parsed(_split_explain(sql)[1])
    except QueryError:
        return {}


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={**OFFLINE})
    for setting in (f"max_expression_depth = {_MAX_DEPTH}", "enable_external_access = false", "threads = 1"):
        connection.execute(f"set {setting}")
    connection.execute("set lock_configuration = true")
    return connection


def _parsed(sql: str) -> dict[str, Any]:
    """Return DuckDB's syntax tree of the statements. `error` is set if the text is not SQL, or not a SELECT."""
    try:
        with _lock:
            row = _parser().execute("select json_serialize_sql(?::varchar)", [sql]).fetchone()
        tree: dict[str, Any] = json.loads(row[0] if row else "{}")
    except (duckdb.Error, RecursionError) as e:
        raise QueryError(f"this SQL cannot be checked: {one_line(str(e))}; simplify it") from e
    return tree


def _refusal(sql: str, tree: dict[str, Any]) -> str:
    if tree.get("error_type") != "not implemented":
        return f"not SQL: {one_line(str(tree.get('error_message')))}"
    try:
        kinds = [s.type.name for s in duckdb.extract_statements(sql)]
    except duckdb.Error as e:
        return f"not SQL: {one_line(str(e))}"
    if "EXPLAIN" in kinds:
        return "EXPLAIN takes one SELECT, without ANALYZE; a PIVOT in it needs its values: ON column IN (...)"
    if kinds[-1:] == ["SELECT"] and re.search(r"\bpivot", sql, re.I):
        return "this PIVOT cannot be checked; write its values: PIVOT ... ON column IN (...)"
    return f"the lake is read-only: {', '.join(kinds)} is refused; use SELECT"


def _split_explain(sql: str) -> tuple[str, str]:
    """Split off EXPLAIN with its format from its statement. Raises `QueryError` for EXPLAIN ANALYZE."""
    raw = sql.encode()
    words = _words(sql)
    if next(words, (0, ""))[1] != "explain":
        return "", sql
    offset, word = next(words, (len(raw), ""))
    if word in ("analyze", "analyse"):
        raise QueryError("EXPLAIN ANALYZE runs the statement and is refused; use EXPLAIN")
    after = raw[offset:].decode()
    form = _EXPLAIN.match(after)
    return (f"explain (format {form[1]}) ", after[form.end() :]) if form else ("explain ", after)


def _words(sql: str) -> Iterator[tuple[int, str]]:
    """Yield keywords and brackets with their byte offsets, skipping comments and string literals."""
    raw = sql.encode()
    for offset, kind in duckdb.tokenize(sql):
        if kind in (duckdb.token_type.keyword, duckdb.token_type.operator):
            found = re.match(rb"\w+|.", raw[offset:], re.S)
            yield offset, found[0].decode(errors="replace").lower() if found else ""


# ---- PIVOT without its values


def _of_dynamic_pivot(sql: str) -> dict[str, Any] | None:
    """Return the tree of a PIVOT whose values come from the data, with each `ON column` read as `ON column IN (mark)`.

    DuckDB has no tree of such a statement, because it first creates an enum type of the values. Each mark must come back as
    the only value of a pivot's column. Then removing it changes nothing else in how the statement is read.
    """
    mark = f"mark {uuid.uuid4()}"
    marked, count = _marked(sql, f"\n in ('{mark}') ")
    tree: dict[str, Any] = _parsed(marked) if count else {"error": True}
    if tree.get("error") or len(tree["statements"]) != 1:
        return None
    texts = json.dumps(tree).count(mark)
    columns = [c for node in _nodes(tree) if node.get("type") == "PIVOT" for c in node["pivots"]]
    taken = sum([v.get("value") for e in c["entries"] for v in e["values"]] == [mark] for c in columns)
    kinds = [s.type.name for s in duckdb.extract_statements(sql)]
    made_alike = kinds[-1:] == ["SELECT"] and set(kinds[:-1]) == {"CREATE"}
    return tree if count == taken == texts and made_alike else None


def _marked(sql: str, mark: str) -> tuple[str, int]:
    """Return the statement with a mark after each pivot column without IN, and their number: a guess that the tree confirms."""
    raw = sql.encode()
    at: list[int] = []
    state: dict[int, str] = {}
    depth = 0
    for offset, word in [*_words(sql), (len(raw), ";")]:
        now = state.get(depth)
        ends = word in (")", ";", "using", "group", "order", "limit", "union")
        if now == "bare" and (ends or word == ","):
            at.append(offset)
        if word in ("pivot", "pivot_wider"):
            state[depth] = "source"
        elif now and (word == "on" or (word == "," and now != "source")):
            state[depth] = "bare"
        elif now == "bare" and word == "in":
            state[depth] = "valued"
        elif now and now != "source" and ends:
            del state[depth]
        if word in ("(", "[", "{"):
            depth += 1
        elif word in (")", "]", "}"):
            state.pop(depth, None)
            depth -= 1
    parts = [raw[a:b].decode() for a, b in zip([0, *at], [*at, len(raw)], strict=True)]
    return mark.join(parts), len(at)


# ---- the tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a tree, without recursion, because trees are deep."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_tree(tree: dict[str, Any]) -> None:
    of_tables = {id(n["function"]) for n in _nodes(tree) if n.get("type") == "TABLE_FUNCTION" and "function" in n}
    for node in _nodes(tree):
        kind = str(node.get("type"))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise QueryError(f"{one_line(kind)} is not a reading statement; use SELECT")
        if "sample" in node and "alias" in node and kind not in _REFS:
            raise QueryError(f"{one_line(kind)} is not a table; read one of the lake's views")
        if "function_name" in node:
            (_check_table_function if id(node) in of_tables else _check_function)(node)
        if kind == "BASE_TABLE":
            _check_table(node)
        elif kind == "SHOW_REF":
            _check_show(node)


def _check_table(node: dict[str, Any]) -> None:
    catalog, schema, name = (str(node.get(k, "")).lower() for k in ("catalog_name", "schema_name", "table_name"))
    said = one_line(".".join(part for part in (catalog, schema, name) if part), 80)
    if not _NAME.fullmatch(name) or (schema and name in _FILE_TYPES):
        raise QueryError(f"{said} is not the name of a table; files and addresses are not read")
    if catalog not in _CATALOGS or schema not in _SCHEMAS or name in _HIDDEN or name.startswith("__"):
        raise QueryError(f"{said} is not part of the lake; SHOW TABLES lists its views")


def _check_show(node: dict[str, Any]) -> None:
    catalog, schema = str(node.get("catalog_name", "")).lower(), str(node.get("schema_name", "")).lower()
    shown, name = node.get("show_type"), str(node.get("table_name", "")).strip('"').lower()
    of_query = shown in ("DESCRIBE", "SUMMARY") and node.get("query") and not name
    of_schema = shown == "SHOW_FROM" and catalog in ("", "lake") and schema in _LAKE_SCHEMAS
    if not (of_query or of_schema or (shown == "SHOW_UNQUALIFIED" and name in _SHOWN)):
        raise QueryError(f"SHOW {one_line(name or schema, 80)} is refused; use SHOW TABLES or DESCRIBE view")


def _check_table_function(node: dict[str, Any]) -> None:
    name, schema, catalog = (str(node.get(k, "")).lower() for k in ("function_name", "schema", "catalog"))
    of_lake = "lake" in (schema, catalog)
    if name in MACROS and (schema, catalog) in _OF_MACROS:
        return
    if name not in (_LAKE_TABLE_FUNCTIONS if of_lake else _TABLE_FUNCTIONS):
        raise QueryError(f"the table function {one_line(name, 80)} is refused; read one of the lake's views")


def _check_function(node: dict[str, Any]) -> None:
    name, schema, catalog = (str(node.get(k, "")).lower() for k in ("function_name", "schema", "catalog"))
    known, allowed = _functions()
    # `lake.f(x)` can also mean f(lake, x) of a column `lake`, so functions that DuckDB defines are not macros of the lake.
    of_lake = "lake" in (schema, catalog) and name not in known | _REFUSED_FUNCTIONS
    if name not in allowed and not of_lake:
        raise QueryError(
            f"the function {one_line(name, 80)} is refused or unknown; a macro of the lake is lake.main.name(...)"
        )


@cache
def _functions() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all DuckDB functions without extensions, and of those that may be called."""
    with _lock:
        found = _parser().execute(
            "select lower(function_name), bool_or(coalesce(has_side_effects, false)) from duckdb_functions() "
            "where function_type in ('scalar', 'aggregate', 'macro') group by all"
        )
        effects = dict(found.fetchall())
    allowed = {n for n, effect in effects.items() if not effect and not n.startswith("__")}
    return frozenset(effects), frozenset((allowed | _HARMLESS_FUNCTIONS) - _REFUSED_FUNCTIONS)
