"""With local weight files nothing needs a network: every connection but those to the machine's own sockets is forbidden here."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anndata
import pytest
import torch

from stpath_assets.storage import Store
from tests.features.test_gigapath import small_model

GOLDEN = Path(__file__).parent / "prediction" / "golden"

# What a firewall does, in the process itself; the real architecture's sizes are replaced by small ones, nothing else.
FORBIDDEN = """
import json, socket, sys
def forbid(name):
    real = getattr(socket.socket, name)
    def refuse(self, *arguments):
        if self.family == socket.AF_UNIX:
            return real(self, *arguments)
        sys.stderr.write(f"NETWORK: {name} {arguments}\\n")
        raise OSError("the network is forbidden")
    setattr(socket.socket, name, refuse)
for name in ("connect", "connect_ex", "sendto"):
    forbid(name)
def lookup(*arguments, **_):
    sys.stderr.write(f"NETWORK: lookup {arguments}\\n")
    raise socket.gaierror("the network is forbidden")
socket.getaddrinfo = socket.gethostbyname = lookup
from stpath_assets.features.encoders import gigapath
gigapath.ARCHITECTURE.update(SIZES)
from stpath_assets.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as e:
        if e.code:
            raise
"""


SIZES = {"depth": 1, "embed_dim": 1536, "num_heads": 24, "mlp_ratio": 0.5}


@pytest.fixture
def forbidden(tmp_path: Path) -> Callable[..., None]:
    """Runs a command with local weights in a process that may not connect; it must succeed without having tried."""
    torch.save(small_model(**SIZES).state_dict(), tmp_path / "pytorch_model.bin")
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {
        "STPATH_GIGAPATH_WEIGHTS": str(tmp_path / "pytorch_model.bin"),
        "STPATH_WEIGHTS": str(GOLDEN / "stfm.pth"),
        "STPATH_VOCABULARY": str(GOLDEN / "symbol2ensembl.json"),
    }
    code = FORBIDDEN.replace("SIZES", repr(SIZES))

    def run(*commands: list[str | Path]) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", code, json.dumps(commands, default=str)],
            env=env, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert "NETWORK" not in ran.stderr
        assert ran.returncode == 0, ran.stderr + ran.stdout

    return run


def test_slides_are_predicted_without_a_network(
    drawn_slide: Path, tmp_path: Path, forbidden: Callable[..., None]
) -> None:
    encoders = ("demo", "gigapath")
    given = ["--organ", "Breast", "--tech", "Visium", "--genes", "EPCAM,CD74"]
    forbidden(*(["predict", drawn_slide, *given, "--encoder", e, "--out", tmp_path / f"{e}.h5ad"] for e in encoders))
    for encoder in encoders:
        predicted = anndata.read_h5ad(tmp_path / f"{encoder}.h5ad")
        assert predicted.uns["histo"]["fm_backbone"] == encoder
        assert list(predicted.var_names) == ["EPCAM", "CD74"]


@pytest.mark.soak
def test_runs_and_the_doctor_need_no_network(drawn_slide: Path, tmp_path: Path, forbidden: Callable[..., None]) -> None:
    """Dagster as well: registering, all stages by either encoder, the catalog."""
    home = tmp_path / "root"
    run = ["run", "--genes", "EPCAM", "--home", home, "--encoder"]
    forbidden(["add", drawn_slide, "--home", home], [*run, "demo"], [*run, "gigapath"], ["doctor", "--home", home])
    assert {r["encoder"] for r in Store(home).read("gigapath_features", "drawn").to_pylist()} == {"gigapath"}
    assert Store(home).read_by_gene("stpath_predictions", "drawn").genes == ["EPCAM"]
    runs = "select count(*) from runs where status = 'SUCCESS'"
    with closing(sqlite3.connect(home / "dagster" / "history" / "runs.db")) as records:
        assert records.execute(runs).fetchone() == (4,)


@pytest.mark.parametrize(
    "attempt", ['socket.create_connection(("127.0.0.1", 9))', 'socket.getaddrinfo("example.invalid", 443)']
)
def test_an_attempt_would_be_seen(attempt: str) -> None:
    code = FORBIDDEN.partition("from stpath_assets")[0] + attempt
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "NETWORK" in ran.stderr
