"""`gigapath serve` and `gigapath status`: the warm encoder on a Ray cluster."""

import json
from typing import Any

import click

from stpath_assets.cli.options import common, serving


@click.group()
def gigapath() -> None:
    """Serve the encoder on a Ray cluster.

    It is loaded once and used by the steps of many runs.

    \b
    stpath-assets gigapath serve --replicas 2
    stpath-assets gigapath status
    """


@gigapath.command("serve")
@click.option("--encoder", default="gigapath", show_default=True, help="gigapath, demo or timm:MODEL.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--gpus", type=click.FloatRange(0), help="GPUs per replica; 0 uses the CPU.  [default: 1 if there is one]"
)
@click.option("--cpus", type=click.FloatRange(0), default=1.0, show_default=True, help="CPUs per replica.")
@click.option(
    "--max-in-flight", type=click.IntRange(1), default=2, show_default=True, help="Batches per replica at a time."
)
@click.option("--address", help="Ray cluster, host:port or auto.  [default: start one]")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for other machines."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--detach", is_flag=True, help="Return when it is ready. It is served until the cluster ends.")
@serving
def serve_encoder(home: str | None, encoder: str, address: str | None, detach: bool, **given: Any) -> None:
    """Serve the encoder until Ctrl-C, to everyone with the token.

    \b
    stpath-assets gigapath serve
    stpath-assets gigapath serve --address auto --replicas 4 --detach
    """
    from stpath_assets.features import EncoderChoice
    from stpath_assets.features.serving import deploy
    from stpath_assets.features.serving.token import require_token
    from stpath_assets.settings import load_settings

    settings = load_settings(home)
    if detach and address is None:
        raise click.UsageError("--detach needs a running cluster: start one (ray start --head) and give --address auto")
    token = require_token(settings)
    choice = EncoderChoice.of(encoder, settings)
    asked = deploy.Deployment(
        given["replicas"], deploy.gpus_of(choice, given["gpus"]), given["cpus"], given["max_in_flight"],
        given["host"], given["port"],
    )  # fmt: skip
    deploy.serve(choice, asked, token, address, click.echo)
    if not detach:
        deploy.wait_and_stop()


@gigapath.command("status")
@click.option("--url", help="The served encoder.  [default: STPATH_ENCODER_URL, else http://127.0.0.1:8000]")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as it always does.")
@common
def encoder_status(home: str | None, url: str | None) -> None:
    """Show what the replicas of the served encoder have done, as JSON.

    \b
    stpath-assets gigapath status
    stpath-assets gigapath status --url http://gpu1:8000
    """
    from stpath_assets.features.serving.client import Server
    from stpath_assets.features.serving.token import read_token
    from stpath_assets.settings import load_settings

    settings = load_settings(home, encoder_url=url)
    server = Server(settings.encoder_url or "http://127.0.0.1:8000", read_token(settings))
    click.echo(json.dumps(server.counts(), indent=1))
