"""Names that a statement got wrong: views, columns, macros and genes, with the nearest ones that exist.

DuckDB's own suggestions come from its whole catalog; these come from the lake only.
"""

import difflib
import re
from collections.abc import Callable, Collection, Sequence

from stpath_assets.catalog.guard import constants_of, has_alternatives, tables_of
from stpath_assets.catalog.views import Documented, documented
from stpath_assets.errors import QueryError, one_line
from stpath_assets.storage import Store
from stpath_assets.storage.lake import quote

CHECKED = 20
"""A statement that names more genes, or more slides, is not checked for unknown ones."""

_GENE_TABLES = (
    "expression_by_slide", "stpath_predictions", "reference_predictions", "imported_predictions", "spot_expression",
    "evaluation_metrics", "bulk_expression",
)  # fmt: skip
_TABLE = re.compile(r'Table with name "?(?P<name>[^"\s]+)"? does not exist')
_COLUMN = re.compile(r'(?:Referenced column|column named|does not have a column named) "(?P<name>[^"]+)"')
_FUNCTION = re.compile(r"(?:Function with name \"?|the (?:table )?function )(?P<name>[^\s\"]+)")


def explain(error: QueryError, statement: str, own: Collection[str] = ()) -> QueryError:
    """Return the error of a statement, with the nearest names if it names a view, column or macro that does not exist.

    `own` are names of the user's own tables, whose columns are known to DuckDB only.
    """
    text, known = str(error), documented()
    macros = {d.name: d for d in known if d.kind == "macro"}
    if found := _TABLE.search(text):
        name = found["name"].rpartition(".")[2]
        if name in macros:
            return _in_from(macros[name])
        return _no("view", name, [*own, *(d.name for d in known)], "SHOW TABLES lists them")
    if (found := _COLUMN.search(text)) and not tables_of(statement) & set(own):
        of = [d for d in known if d.name in tables_of(statement)]
        columns = sorted({c for d in of or known for c, _, _ in d.columns})
        views = " and ".join(d.name for d in of)
        return _no("column", found["name"], columns, f"sql --schema lists those of {views or 'each view'}")
    if found := _FUNCTION.search(text):
        name = found["name"].lower()
        if name in macros:
            return _in_from(macros[name])
        if nearest(name, list(macros)):
            return _no("function", name, list(macros), "")
    return error


def unknown_names(store: Store, statement: str, known: dict[str, set[str]] | None = None) -> tuple[list[str], bool]:
    """Return a line for each gene, slide, tile and gene set that a statement names, as in `gene = 'ERBB2'` or
    `hotspots('a', 'ERBB2')`, and that does not exist; and whether genes or sets are named in vain, so that no row can be found.
    That a slide or tile is not there may be what is asked. If `known` is given, names are read into it once, and a name in it
    is not looked up again.
    """
    said, in_vain = list[str](), False
    for kind, column, parameters, is_known, names in _KINDS:
        named = constants_of(statement, column, parameters)
        if not named or len(named) > CHECKED:
            continue
        if known is not None and kind not in known:
            known[kind] = set(names(store))
        there = (known or {}).get(kind, set())
        unknown = [n for n in named if n not in there and not is_known(store, n)]
        said += [str(_no(kind, name, names(store), f"select distinct {column} lists them")) for name in unknown]
        in_vain = in_vain or (kind not in ("slide", "tile") and len(unknown) == len(named))
    return said, in_vain and not has_alternatives(statement)


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three names that are spelt alike, the nearest first, whatever the case."""
    lower: dict[str, str] = {}
    for n in names:
        lower.setdefault(n.lower(), n)
    return [lower[n] for n in difflib.get_close_matches(name.lower(), list(lower), 3, 0.6)]


def _in_from(macro: Documented) -> QueryError:
    return QueryError(f"{macro.name} is called in FROM: select * from {macro.call}")


def _no(kind: str, name: str, names: Sequence[str], otherwise: str) -> QueryError:
    """Return the error that there is nothing of a name, with the nearest ones or where to look."""
    near = " or ".join(nearest(name, names))
    return QueryError(f"there is no {kind} {one_line(name)}; {f'did you mean {near}?' if near else otherwise}")


def _is_gene(store: Store, gene: str) -> bool:
    # One table after another: the first answers for nearly all.
    return any(store.rows(f"select 1 from lake.parts.{t} where gene = {quote(gene)} limit 1") for t in _GENE_TABLES)


def _is_tile(store: Store, tile: str) -> bool:
    of_imports = f"lake.parts.imported_predictions where gene is null and list_contains(tile_id, {quote(tile)})"
    tables = (f"lake.parts.tile_grids where tile_id = {quote(tile)}", of_imports)
    return any(store.rows(f"select 1 from {table} limit 1") for table in tables)


def genes_of(store: Store) -> list[str]:
    """Return the genes of the first slide of each organ and cohort, and those of imported predictions."""
    found = store.rows(
        "select distinct gene from lake.parts.expression_by_slide where slide_id in (select min(slide_id) "
        "from lake.parts.slides where status = 'ready' group by organ, cohort) union select distinct gene "
        "from lake.parts.imported_by_slide order by 1"
    )
    return [gene for (gene,) in found]


def _named(column: str, *tables: str) -> tuple[Callable[[Store, str], bool], Callable[[Store], list[str]]]:
    """Return whether any of some tables has a name in a column, and all names of the first."""

    def is_known(store: Store, name: str) -> bool:
        where = f"where concat({column}, '') = {quote(name)} limit 1"
        return any(store.rows(f"select 1 from lake.parts.{t} {where}") for t in tables)

    def names(store: Store) -> list[str]:
        return [name for (name,) in store.rows(f"select {column} from lake.parts.{tables[0]} order by 1")]

    return is_known, names


_Kind = tuple[str, str, tuple[str, ...], Callable[[Store, str], bool], Callable[[Store], list[str]]]
_KINDS: tuple[_Kind, ...] = (
    ("gene", "gene", ("gene_symbol", "gene_a", "gene_b", "genes"), _is_gene, genes_of),
    ("slide", "slide_id", ("slide",), *_named("slide_id", "slides", "quarantine", "lineage")),
    ("tile", "tile_id", ("tile",), _is_tile, lambda store: []),
    ("gene set", "set_name", ("signature",), *_named("set_name", "gene_sets")),
)
