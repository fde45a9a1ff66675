"""Connects to a Ray cluster, with a one-line error if there is none."""

import os
import socket
from pathlib import Path
from typing import Any

from stpath_assets.errors import ServingError, describe

NAMESPACE = "stpath"

_CONNECT_S = 5.0


def import_ray() -> Any:
    """Return the module ray, with usage statistics off. Raises `ServingError` if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray sends a token to an explicit address only in this mode, which it reads from the environment, as do the processes
    # that it starts. So the variable stays set; the process exists to serve.
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    try:
        import ray
    except ImportError as e:
        raise ServingError(
            "Ray is not installed; run: pip install 'stpath-assets[ray]' where the encoder is served"
        ) from e
    return ray


def connect(address: str) -> Any:
    """Connect this process to a running cluster, and return the module ray.

    `address` is `auto` for a cluster on this machine, or `host:port`. Raises `ServingError` if there is none.
    """
    ray = import_ray()
    if address.startswith("ray://"):
        raise ServingError(
            f"--address {address}: is the address of a Ray client; give the cluster's, host:port as ray start prints it"
        )
    try:
        if address != "auto":
            check_listening(address)  # Ray itself takes half a minute to say that nothing listens
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True
        )
    except Exception as e:  # ConnectionError, RuntimeError and types of its own, by version
        raise ServingError(f"no Ray cluster answers at {address} ({describe(e)}); start one: ray start --head") from e
    return ray


def check_listening(address: str) -> None:
    """Raise `OSError` or `ValueError` if nothing listens at host:port."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()
