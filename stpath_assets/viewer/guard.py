"""The filter in front of our web servers: it answers only under known host names, and changes nothing for pages of others.

A browser sends a page's requests to any address, this machine's included. So a request passes only if

- its `Host` is that of this machine or in `STPATH_UI_HOSTS` (names, comma-separated): a foreign name may be made to point here;
- a page that sends it (`Origin`) is served by the same host, for everything but plain reading.
"""

import json
import os
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import Any
from urllib.parse import urlsplit

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Refusal = Callable[[Scope, Container[str]], str | None]

HOSTS = "STPATH_UI_HOSTS"
READING = ("GET", "HEAD", "OPTIONS")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def header_of(scope: Scope, name: str) -> str | None:
    """Return a header of an ASGI request, or None."""
    found = (value for key, value in scope.get("headers", ()) if key.decode("latin-1").lower() == name)
    return next((value.decode("latin-1") for value in found), None)


def refusal(scope: Scope, hosts: Container[str]) -> str | None:
    """Return why an ASGI request is refused, or None if it may pass."""
    host, is_websocket = header_of(scope, "host") or "", scope["type"] == "websocket"
    if _name_of(f"//{host}") not in hosts:
        return f"host {host[:80]!r} is not served here; name it in {HOSTS}"
    origin = header_of(scope, "origin")
    reads = not is_websocket and scope["method"] in READING
    if not reads and origin is not None and urlsplit(origin).netloc != host:
        return f"the page {origin[:80]!r} may not do this"
    return None


def guard(app: App, hosts: Iterable[str], refuse: Refusal = refusal) -> App:
    """Return an ASGI app that answers 403 to what is refused, and passes on the rest."""
    known = frozenset(name.lower() for name in hosts)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        why = None if scope["type"] == "lifespan" else refuse(scope, known)
        if why is None:
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            body = json.dumps({"error": why}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return guarded


def allowed_hosts() -> list[str]:
    """Return the names under which pages are served."""
    return [*_LOCAL, *(name.strip() for name in os.environ.get(HOSTS, "").split(",") if name.strip())]


def _name_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
