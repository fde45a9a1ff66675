"""Imports into a lake on Postgres and an object store: nothing of them is on this machine but locks."""

from pathlib import Path

import pytest

from stpath_assets.imports import import_predictions, import_table
from stpath_assets.storage import Home, Store, lake
from stpath_assets.storage.maintenance import maintain
from tests.asked import ask
from tests.catalog.cohorts import make
from tests.imports.test_imports import atlas, written
from tests.storage.servers import bucket, database, object_server, postgres  # noqa: F401
from tests.storage.test_maintenance import NOW

pytestmark = pytest.mark.server


def test_imports_views_and_macros_on_postgres_and_s3(
    database: str,  # noqa: F811
    bucket: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STPATH_LAKE", database)
    monkeypatch.setenv("STPATH_TABLES", f"s3://{bucket}/tables")
    store = Store(Home(tmp_path / "root", database, f"s3://{bucket}/tables"))
    slides = make(store)
    import_table(store, "clinical", written(tmp_path / "c.csv", "patient_id,age\nP1,5\nP2,6\n"))
    atlas().write_h5ad(tmp_path / "d.h5ad")
    import_predictions(store, "a", tmp_path / "d.h5ad", "deepspot", "MIT", "log1p")
    maintain(store, NOW, NOW, NOW)
    joined = "select age, slides from clinical join patient_expression using (patient_id)"
    assert ask(store.home, f"{joined} where gene = 'ERBB2' and model = 'stpath' order by 1") == [(5, 2), (6, 1)]
    assert len(ask(store.home, "from hotspots('a', 'ERBB2') where model = 'stpath'")) == len(slides[0].xy)
    assert ask(store.home, "select count(*) from gene_map('a', 'ZZZ')") == [(30,)]
    assert {p.name for p in (tmp_path / "root" / "tables").rglob("*") if p.is_file()} == set()
    lake._forget(store.place)
