"""Asks the catalog one question in this process, which imports nothing else, and prints times and peak memory as JSON.

python -m benchmarks.asking '{"root": "…", "sql": "…", "times": 9, …}'
"""

import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from stpath_assets.catalog.query import attached
from stpath_assets.storage import Home, Store


def ask(request: dict[str, Any]) -> dict[str, float]:
    """ms of a question: the first, and the median of the others on the same connection; peak memory, MB."""
    took, store = [], Store(Home(Path(request["root"]), request["lake"], request["tables"]))
    with attached(store, None) as connection:
        connection.execute("set threads = 2")
        for words in request["words"]:
            query = request["sql"].format(**words)
            began = time.perf_counter()
            rows = connection.execute(query).to_arrow_table().num_rows
            took.append((time.perf_counter() - began) * 1e3)
            assert rows > 0, query
    return {"first": took[0], "warm": statistics.median(took[1:]), "mb": _peak_mb()}


def _peak_mb() -> float:
    """Peak resident memory of this program; `getrusage` would count that of the process which started it."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    print(json.dumps(ask(json.loads(sys.argv[1]))))
