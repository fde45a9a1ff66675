"""With local weight files nothing needs a network: every connection but those to the machine's own sockets is forbidden here."""

import os
import subprocess
import sys
from pathlib import Path

import anndata
import pytest
import torch

from tests.features.test_gigapath import small_model

GOLDEN = Path(__file__).parent / "prediction" / "golden"

# What a firewall does, in the process itself; the real architecture's sizes are replaced by small ones, nothing else.
FORBIDDEN = """
import socket, sys
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
from stpath_assets.features import gigapath
gigapath.ARCHITECTURE.update(SIZES)
from stpath_assets.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("encoder", ["demo", "gigapath"])
def test_a_slide_is_predicted_without_a_network(encoder: str, drawn_slide: Path, tmp_path: Path) -> None:
    sizes = {"depth": 1, "embed_dim": 1536, "num_heads": 24, "mlp_ratio": 0.5}
    torch.save(small_model(**sizes).state_dict(), tmp_path / "pytorch_model.bin")
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {
        "STPATH_GIGAPATH_WEIGHTS": str(tmp_path / "pytorch_model.bin"),
        "STPATH_WEIGHTS": str(GOLDEN / "stfm.pth"),
        "STPATH_VOCABULARY": str(GOLDEN / "symbol2ensembl.json"),
    }
    out = tmp_path / "out.h5ad"
    code = FORBIDDEN.replace("SIZES", repr(sizes))
    given = ["--organ", "Breast", "--tech", "Visium", "--genes", "EPCAM,CD74", "--encoder", encoder, "--out", str(out)]
    ran = subprocess.run(
        [sys.executable, "-c", code, "predict", str(drawn_slide), *given],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert "NETWORK" not in ran.stderr
    assert ran.returncode == 0, ran.stderr
    predicted = anndata.read_h5ad(out)
    assert predicted.uns["histo"]["fm_backbone"] == encoder
    assert list(predicted.var_names) == ["EPCAM", "CD74"]
