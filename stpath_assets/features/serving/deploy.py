"""Deploys the encoder on a cluster, behind Ray Serve's own HTTP server: `stpath-assets gigapath serve`."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from stpath_assets import weights
from stpath_assets.errors import ServingError, one_line
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.serving import loopback
from stpath_assets.features.serving.client import Server
from stpath_assets.features.serving.cluster import NAMESPACE, connect, import_ray
from stpath_assets.features.serving.messages import PREFIX
from stpath_assets.features.serving.token import digest_of

APPLICATION = "stpath-encoder"
DEPLOYMENT = "EncoderReplica"
COUNTER = "stpath-encoder-counter"

_QUIET = {"log_level": "ERROR", "enable_access_log": False}


@dataclass(frozen=True)
class Deployment:
    """How the encoder is served: number of replicas, GPUs and CPUs of each (fractions allowed), concurrent requests per replica,
    and the address on which the head node listens.

    With two concurrent requests, the pixels of one are read while the other is computed.
    """

    replicas: int = 1
    gpus: float = 0.0
    cpus: float = 1.0
    in_flight: int = 2
    host: str = "127.0.0.1"
    port: int = 8000


def serve(
    choice: EncoderChoice, deployment: Deployment, token: str, address: str | None, say: Callable[[str], None]
) -> str:
    """Deploy the encoder, replacing any that is served, and return its URL once every replica is loaded.

    `address` None starts a cluster on this machine that ends with this process. Raises `ServingError` if the cluster cannot be
    reached or lacks what the replicas need, and any error of loading the encoder.
    """
    facts = choice.facts()  # here first, so that an error in the weights is one line, not a replica's log
    ray = _start_here(deployment) if address is None else connect(address)
    _require(ray, deployment)
    head = str(ray.get_runtime_context().gcs_address).rpartition(":")[0]
    here = head == str(ray.util.get_node_ip_address())
    say(f"{choice.name} ({facts['encoder_precision']}, weights {facts['encoder_weights_sha256'][:12]}): loading")
    _deploy(ray, choice, deployment, digest_of(token), here)
    url = _url(deployment, head)
    if here:
        _require_answer(url, token)
    each = f"{deployment.gpus:g} GPUs and {deployment.cpus:g} CPUs each"
    where = "" if here or not _is_loopback(deployment.host) else f" on {head}, where alone it listens"
    say(f"ready: {deployment.replicas} replicas, {each}; use it with STPATH_ENCODER_URL={url}{where}")
    for line in _exposed(deployment, address, head):
        say(line)
    return url


def _start_here(deployment: Deployment) -> Any:
    """Start a cluster on this machine that listens on loopback only, and return the module ray."""
    # Ray's own switch for clusters of one machine: without it, its servers listen on every interface. Read when ray is imported.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = import_ray()
    hook = f"{loopback.__name__}.{loopback.stay.__name__}"
    ray.init(
        "local", namespace=NAMESPACE, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        num_gpus=None if deployment.gpus else 0, runtime_env={"worker_process_setup_hook": hook},
    )  # fmt: skip
    return ray


def _exposed(deployment: Deployment, address: str | None, head: str) -> Iterator[str]:
    """Yield a line for each thing that other machines can reach."""
    if not _is_loopback(deployment.host):
        yield f"exposed: whoever reaches port {deployment.port} of {head} and has the token; use a proxy with TLS in front"
    if address is not None:
        if not _is_loopback(head):
            yield "exposed: Ray's own ports, to the cluster's network; keep others out of it (docs/ray.md)"
        return
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            for socket_ in process.net_connections("tcp"):
                is_open = socket_.status == psutil.CONN_LISTEN and not _is_loopback(socket_.laddr.ip)
                if is_open and socket_.laddr.port != deployment.port:
                    yield f"exposed: port {socket_.laddr.port} of {process.name()}, on every interface"


def gpus_of(choice: EncoderChoice, asked: float | None) -> float:
    """Return the GPUs per replica: as asked, else one if the encoder would use one on this machine."""
    if asked is not None or choice.name == "demo":
        return asked or 0.0
    return float(weights.choose_device(choice.device).startswith("cuda"))


def wait_and_stop() -> None:
    """Wait for Ctrl-C or the end of the process, then take the encoder down."""
    from ray import serve

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()  # else its HTTP server would go on listening, on a port that cannot be changed


def _deploy(ray: Any, choice: EncoderChoice, deployment: Deployment, token_sha256: str, here: bool) -> None:
    from ray import serve

    from stpath_assets.features.serving.server import Counter, EncoderReplica

    if here and not serve.status().proxies:
        _require_free(deployment.host, deployment.port)
    counter = ray.remote(Counter).options(
        name=COUNTER, namespace=NAMESPACE, lifetime="detached", num_cpus=0, get_if_exists=True
    )
    # Ray Serve's own progress belongs in its logs.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": deployment.host, "port": deployment.port},  # without a timeout: a batch may take a minute
        logging_config=_QUIET,
    )
    deployed = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=deployment.replicas,
        max_ongoing_requests=deployment.in_flight,
        ray_actor_options={"num_cpus": deployment.cpus, "num_gpus": deployment.gpus},
        health_check_timeout_s=120,  # a batch of the real encoder takes a CPU most of a minute
        logging_config=_QUIET,
    )(EncoderReplica)
    bound = deployed.bind(choice, deployment.replicas, deployment.in_flight, token_sha256, counter.remote())
    try:
        serve.run(bound, name=APPLICATION, route_prefix=PREFIX)
    except Exception as e:  # RuntimeError, TimeoutError and Ray's own
        said = one_line(str(e))[-300:]
        raise ServingError(f"the encoder could not be served ({type(e).__name__}: {said}); see Ray's logs") from e


def _require(ray: Any, deployment: Deployment) -> None:
    """Raise `ServingError` if the cluster can never place the replicas; Ray would wait for ever."""
    has = ray.cluster_resources()
    for name, each in (("GPU", deployment.gpus), ("CPU", deployment.cpus)):
        needed = each * deployment.replicas
        if needed > has.get(name, 0):
            raise ServingError(
                f"{deployment.replicas} replicas need {needed:g} {name}s, and the cluster has {has.get(name, 0):g}; "
                f"ask for fewer: --replicas, --{name.lower()}s"
            )


def _require_free(host: str, port: int) -> None:
    """Raise `ServingError` if something already listens there; Serve would silently share the port with another Serve."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as e:
        raise ServingError(f"cannot listen at {host}:{port} ({e}); give another --host or --port") from e


def _require_answer(url: str, token: str) -> None:
    """Raise `ServingError` if the encoder does not answer: Ray Serve keeps the host and port of its first start."""
    try:
        Server(url, token).hello()
    except ServingError as e:
        raise ServingError(
            f"the encoder is loaded, but does not answer at {url}; if Ray Serve already runs with another host or port, "
            f"give these (--host, --port), or end it first: serve shutdown ({e})"
        ) from e


def _url(deployment: Deployment, head: str) -> str:
    """Return the URL for steps. `head` is the address of the head node."""
    host = head if deployment.host in ("0.0.0.0", "::") else deployment.host
    return f"http://[{host}]:{deployment.port}" if ":" in host else f"http://{host}:{deployment.port}"


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.removeprefix("::ffff:").startswith("127.")
