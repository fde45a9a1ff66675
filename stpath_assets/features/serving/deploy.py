"""What `stpath-assets gigapath serve` and `status` do: deploy the encoder on a cluster, and say what it has done."""

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stpath_assets import weights
from stpath_assets.errors import ServingError
from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.serving.cluster import connect, import_ray
from stpath_assets.features.serving.messages import APPLICATION, COUNTER, DEPLOYMENT, NAMESPACE


@dataclass(frozen=True)
class Deployment:
    """How the encoder is served: replicas, GPUs and CPUs of each (fractions allowed), and requests that one takes at once.

    Two requests: of one the pixels are read while the other is computed.
    """

    replicas: int = 1
    gpus: float = 0.0
    cpus: float = 1.0
    in_flight: int = 2


def serve(choice: EncoderChoice, deployment: Deployment, address: str | None, say: Callable[[str], None]) -> str:
    """Deploys the encoder, in place of one that is served, and returns the cluster's address once every replica is loaded.

    `address` None starts a cluster on this machine that ends with this process. Raises `ServingError` where it cannot be
    reached or has not what the replicas need, and what loading the encoder raises.
    """
    facts = choice.facts()  # here first: what is wrong with the weights is then one line, and not a replica's log
    if address is None:
        ray = import_ray()
        ray.init(
            "local", namespace=NAMESPACE, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            num_gpus=None if deployment.gpus else 0,
        )  # fmt: skip
    else:
        ray = connect(address)
    _require(ray, deployment)
    at = str(ray.get_runtime_context().gcs_address)
    say(f"{choice.name} ({facts['encoder_precision']}, weights {facts['encoder_weights_sha256'][:12]}): loading")
    _deploy(ray, choice, deployment)
    each = f"{deployment.gpus:g} GPUs and {deployment.cpus:g} CPUs each"
    say(f"ready: {deployment.replicas} replicas, {each}; use it with STPATH_RAY_ADDRESS={at}")
    return at


def gpus_of(choice: EncoderChoice, asked: float | None) -> float:
    """GPUs a replica: as asked, else one where the encoder would use one here."""
    if asked is not None or choice.name == "demo":
        return asked or 0.0
    return float(weights.choose_device(choice.device).startswith("cuda"))


def wait_and_stop() -> None:
    """Waits for Ctrl-C or the end of the process, and takes the encoder down."""
    from ray import serve

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.delete(APPLICATION)


def counts(address: str) -> dict[str, dict[str, Any]]:
    """What each replica has done since the encoder was first served: pid, device, loads, batches, tiles, by its id.

    Raises `ServingError` where no encoder is served.
    """
    ray = connect(address)
    try:
        counter = ray.get_actor(COUNTER, namespace=NAMESPACE)
    except ValueError as e:
        raise ServingError(
            f"no encoder is served on the Ray cluster at {address}; run: stpath-assets gigapath serve"
        ) from e
    found: dict[str, dict[str, Any]] = ray.get(counter.counts.remote(), timeout=30)
    return found


def _deploy(ray: Any, choice: EncoderChoice, deployment: Deployment) -> None:
    from ray import serve

    from stpath_assets.features.serving.server import Counter, EncoderReplica

    counter = ray.remote(Counter).options(
        name=COUNTER, namespace=NAMESPACE, lifetime="detached", num_cpus=0, get_if_exists=True
    )
    # Its own account of what it does belongs in its logs; what matters is said here.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
    deployed = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=deployment.replicas,
        max_ongoing_requests=deployment.in_flight,
        ray_actor_options={"num_cpus": deployment.cpus, "num_gpus": deployment.gpus},
        health_check_timeout_s=120,  # a batch of the real encoder takes a CPU most of a minute
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )(EncoderReplica)
    try:
        serve.run(deployed.bind(choice, deployment.in_flight, counter.remote()), name=APPLICATION, route_prefix=None)
    except Exception as e:  # RuntimeError, TimeoutError and Ray's own
        said = " ".join(str(e).split())[-300:]
        raise ServingError(f"the encoder could not be served ({type(e).__name__}: {said}); see Ray's logs") from e


def _require(ray: Any, deployment: Deployment) -> None:
    """Raises `ServingError` where the cluster can never place the replicas: Ray would wait for ever."""
    has = ray.cluster_resources()
    for name, each in (("GPU", deployment.gpus), ("CPU", deployment.cpus)):
        needed = each * deployment.replicas
        if needed > has.get(name, 0):
            raise ServingError(
                f"{deployment.replicas} replicas need {needed:g} {name}s, and the cluster has {has.get(name, 0):g}; "
                f"ask for fewer: --replicas, --{name.lower()}s"
            )
