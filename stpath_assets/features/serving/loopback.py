"""Keeps Ray Serve's replicas of a cluster of one machine on loopback.

Ray binds all else to loopback there, but a replica's own server, for calls between deployments, to every interface. Ray runs
`stay` in each of its workers before anything else.
"""

from typing import Any

_EVERYWHERE = "[::]:"


def stay() -> None:
    """Replace an address on every interface by the same port on loopback, wherever Ray adds one to a server."""
    from ray._common import tls_utils

    add = tls_utils.add_port_to_grpc_server

    def add_on_loopback(server: Any, address: str) -> int:
        return int(
            add(server, address.replace(_EVERYWHERE, "127.0.0.1:", 1) if address.startswith(_EVERYWHERE) else address)
        )

    tls_utils.add_port_to_grpc_server = add_on_loopback
