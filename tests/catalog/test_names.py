"""What a statement gets wrong is said with the names that were meant; no statement that can have rows is refused for it."""

from pathlib import Path

import pytest

from stpath_assets.catalog.names import nearest
from stpath_assets.errors import QueryError
from stpath_assets.imports import import_table
from stpath_assets.storage import Store
from tests.asked import ask
from tests.catalog.cohorts import draw, store_slide


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("names") / "root")
    for slide_id in ("section_1", "section_2"):
        store_slide(store, draw(slide_id, 1))
    return store


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from slide", "^there is no view slide; did you mean slides"),
        ("select * from tile_expresion", "^there is no view tile_expresion; did you mean tile_expression"),
        ("describe hotspots", r"^hotspots is called in FROM: select \* from hotspots\(slide, gene_symbol\)$"),
        ("select * from pg_view", "^there is no view pg_view; SHOW TABLES lists them$"),
        ("select organn from slides", "^there is no column organn; did you mean organ"),
        ("select s.organn from slides s", "^there is no column organn; did you mean organ"),
        ("select avg(exprssion_log1p) from tile_expression", "^there is no column .* did you mean expression_log1p"),
        ("select 1 from cohort where wxyz > 1", "^there is no column wxyz; sql --schema lists those of cohort$"),
        ("from hotspot('section_1', 'ERBB2')", "^there is no function hotspot; did you mean hotspots"),
        ("select gene_map('a')", r"^gene_map is called in FROM: select \* from gene_map\(slide, gene_symbol\)$"),
        ("select * from tile_expression where gene = 'ERB2'", "^there is no gene ERB2; did you mean ERBB2"),
        ("select * from spot_expression where 'erbb2' = gene", "^there is no gene erbb2; did you mean ERBB2"),
        ("select count(*) from stpath_predictions p where p.gene in ('XXXX', 'YYYY')", "no gene XXXX; .* no gene YYYY"),
        ("from gene_map('section_1', 'EPCAN')", "^there is no gene EPCAN; did you mean EPCAM"),
        ("from gene_panel(['ERBB3'])", "^there is no gene ERBB3; did you mean ERBB2"),
        ("from signature_score('HALLMARK')", "^there is no gene set HALLMARK; select distinct set_name lists them$"),
    ],
)  # fmt: skip
def test_the_names_that_were_meant(store: Store, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as error:
        ask(store.home, sql)
    assert "pg_" not in str(error.value).replace("pg_view", "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from slides where slide_id = 'nobody' or organ = 'Breast'",
        "select count(*) filter (gene = 'NOTHING') from expression_by_slide",
        "select case when gene = 'NOTHING' then 1 end from expression_by_slide",
        "select 1 from slides where slide_id = 'nobody' union all select 2",
        "select * from expression_by_slide where gene in ('ERBB2', 'NOTHING')",
    ],
)
def test_what_can_have_rows_is_answered_with_a_note(store: Store, sql: str) -> None:
    with pytest.warns(UserWarning, match="there is no (gene NOTHING|slide nobody)"):
        assert ask(store.home, sql)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select * from slides where slide_id = 'section1'", "there is no slide section1; did you mean section_"),
        ("from neighbours('section_1', 'r9c9')", "there is no tile r9c9; select distinct tile_id lists them"),
        ("select * from tile_grids where tile_id = 'r9c9'", "there is no tile r9c9"),
        ("from gene_map('sect', 'ERBB2')", "there is no slide sect; did you mean section_"),
        ("select * from slides where slide_id = 'a\x1b[2J'", r"no slide a\\x1b\[2J"),
    ],
)
def test_a_slide_or_tile_that_is_not_there_is_no_error(store: Store, sql: str, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        assert ask(store.home, sql) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sql",
    [
        "select * from slides where slide_id <> 'nobody'",
        "select * from slides where slide_id not in ('nobody')",
        "select * from slides where slide_id like 'nob%'",
        "select * from tile_expression where gene = 'ERBB2' and slide_id = 'section_1'",
        "select 'NOTHING' as gene",
    ],
)
def test_nothing_is_said_of_names_that_are_no_question(store: Store, sql: str) -> None:
    ask(store.home, sql)


def test_a_scan_in_quarantine_is_a_slide_that_can_be_asked_for(store: Store) -> None:
    store.lake.transact(
        lambda c: c.execute("insert into lake.parts.quarantine values ('/x.svs', 'bad', '', 1, 'broken', now())")
    )
    assert ask(store.home, "select reason from quarantine where slide_id = 'bad'") == [("broken",)]


def test_columns_of_an_own_table_are_duckdbs_to_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("patient_id,stage\nP1,2\n")
    import_table(store, "clinical", tmp_path / "c.csv")
    with pytest.raises(QueryError, match=r'"stag" not found .*"stage"'):
        ask(store.home, "select stag from clinical")
    with pytest.raises(QueryError, match="no view clinica; did you mean clinical"):
        ask(store.home, "select * from clinica")


def test_the_past_is_asked_without_looking_at_the_present(store: Store) -> None:
    from tests import asked

    assert asked.ask(store.home, "select 1 from slides where slide_id = 'nobody'", at="2100-01-01") == []


def test_nearest_names_come_first_whatever_their_case() -> None:
    assert nearest("erbb2", ["ERBB3", "TRBC2", "ERBB2"])[0] == "ERBB2"
    assert nearest("", ["a"]) == []
    assert nearest("slides", []) == []


def test_a_root_without_slides_has_no_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    store.create()
    with pytest.raises(QueryError, match="there is no gene ERBB2; select distinct gene lists them"):
        ask(store.home, "select * from stpath_predictions where gene = 'ERBB2'")
