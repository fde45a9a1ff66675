"""A reader of the catalog and a writer of its files do not harm each other."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from stpath_assets.errors import QueryError
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.storage.fingerprint import start
from tests.asked import ask


def test_queries_answer_while_a_part_is_replaced(drawn_slide: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    Registry(store).add(drawn_slide)
    genes = [f"G{i:04d}" for i in range(500)]
    keys = {"tile_id": np.array([f"t{i:03d}" for i in range(300)], object)}

    def write(value: int) -> None:
        blocks = [(genes, np.full((300, len(genes)), value, np.float32))]
        store.write_by_gene("stpath_predictions", "drawn", keys, blocks, start(n=value), model="stpath-demo")

    write(0)
    stop = threading.Event()

    def rewrite() -> None:
        value = 0
        while not stop.is_set():
            value += 1
            write(value)
            time.sleep(0.2)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(15):
            sql = "select count(*), min(expression_log1p) = max(expression_log1p) from stpath_predictions"
            assert ask(store.home, sql) == [(300 * 500, True)]
    finally:
        stop.set()
        writer.join()


def test_an_error_while_computing_is_one_line(tmp_path: Path) -> None:
    Store(tmp_path).create()
    with pytest.raises(QueryError) as e:
        ask(tmp_path, "select 'a'::int")
    assert "\n" not in str(e.value)
