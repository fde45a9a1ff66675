"""What a second slide costs on a warm server, beside the first on a cold one: `python -m benchmarks.serving`.

Each slide is a run in a process of its own, as Dagster makes them; the time is that until the encoder can be given tiles. For the
first it includes the start of the server and the load of the model. The encoder has GigaPath's architecture with fewer layers and
random weights, made here.
"""

import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from benchmarks.tiles import cpu_model
from stpath_assets.demo import write_phantom
from stpath_assets.features import Encoder, EncoderChoice
from stpath_assets.features.encoders import gigapath
from stpath_assets.features.serving import deploy
from stpath_assets.features.serving.token import require_token
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tiles import TileParameters, store_tiles

_STEP = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from stpath_assets.features import embedder_of, store_features
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
if DEPTH:  # in this process; a server has its own
    from stpath_assets.features.encoders import gigapath
    gigapath.ARCHITECTURE.update(DEPTH)
store = Store(Path(sys.argv[1]))
embedder = embedder_of(load_settings(store.home))
facts = embedder.facts()
embedder.batch_size
print("ready", time.perf_counter() - began)
store_features(store, Registry(store).get(sys.argv[2]), embedder)
"""


@dataclass(frozen=True)
class Shallow(EncoderChoice):
    """GigaPath with fewer layers, wherever it is loaded."""

    depth: int = 40

    def load(self) -> Encoder:
        """The encoder."""
        gigapath.ARCHITECTURE["depth"] = self.depth
        return super().load()


@click.command()
@click.option("--depth", default=12, show_default=True, help="Layers; GigaPath has 40, of 28 million parameters each.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--serve", type=click.Path(path_type=Path), hidden=True)
def main(depth: int, repeats: int, serve: Path | None) -> None:
    """Prints what is measured, a line each."""
    warnings.simplefilter("ignore")
    if serve is not None:
        from benchmarks.serving import Shallow as Named  # by a name that replicas can import

        choice, token = Named("gigapath", serve, "cpu", depth=depth), require_token(load_settings())
        deploy.serve(choice, deploy.Deployment(port=_free_port()), token, None, lambda s: print(s, flush=True))
        deploy.wait_and_stop()
        return
    print(f"{cpu_model()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch {torch.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        weights = home / "random.pth"
        make(weights, depth)
        store = Store(home)
        row = Registry(store).add(write_phantom(home, "phantom_A").slide, slide_id="a")
        store_tiles(store, row, TileParameters())
        env = {
            **os.environ, "STPATH_GIGAPATH_WEIGHTS": str(weights), "RAY_USAGE_STATS_ENABLED": "0",
            "STPATH_ENCODER_TOKEN": secrets.token_hex(),
        }  # fmt: skip
        print(f"{depth} layers, {weights.stat().st_size / 1e9:.1f} GB")
        local = [ready_after(home, env, depth) for _ in range(repeats)]
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving", "--depth", str(depth), "--serve", str(weights)],
            env={**env, "PYTHONPATH": os.getcwd()}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            url = next(line.strip().split("STPATH_ENCODER_URL=")[1] for line in server.stdout if "ready" in line)
            on_server = {**env, "STPATH_ENCODER_URL": url}
            ready_after(home, on_server)
            first = time.perf_counter() - began
            later = [ready_after(home, on_server) for _ in range(repeats)]
        finally:
            server.terminate()
            server.wait(timeout=60)
    print(f"first slide, server and load included: {first:.1f} s")
    print(f"  later ones: {' '.join(f'{t:.1f}' for t in later)} s")
    print(f"  the slowest is {max(later) / first:.0%} of the first (target ≤ 25 %)")
    print(f"  without a server, weights in the page cache: {' '.join(f'{t:.1f}' for t in local)} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def make(path: Path, depth: int) -> None:
    """Random weights of GigaPath's architecture with fewer layers."""
    import timm

    from stpath_assets.features.encoders.gigapath import ARCHITECTURE

    torch.manual_seed(0)
    torch.save(timm.create_model(pretrained=False, **{**ARCHITECTURE, "depth": depth}).state_dict(), path)


def ready_after(home: Path, env: dict[str, str], depth: int | None = None) -> float:
    """Seconds from the start of a run's process until its encoder can be given tiles."""
    began = time.perf_counter()
    step = subprocess.Popen(
        [sys.executable, "-c", _STEP.replace("DEPTH", repr({"depth": depth} if depth else {})), str(home), "a"],
        env=env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert step.stdout is not None
    line = step.stdout.readline()
    took = time.perf_counter() - began
    assert line.startswith("ready"), "the run failed"
    step.kill()
    step.wait()
    return took


if __name__ == "__main__":
    main()
