"""Dagster's web server behind a filter: `python -m stpath_assets.defs.webserver`, with the options of `dagster-webserver`.

Dagster's server has no accounts. It also takes mutations sent by GET, from any page that a user has open, and under any host
name. The filter lets a request pass only if

- its `Host` is that of this machine or in `STPATH_UI_HOSTS` (names, comma-separated): a foreign name may be made to point here;
- a page that sends it (`Origin`) is served by the same host, for everything but plain reading;
- a GraphQL query comes as JSON by POST, or over the UI's own websocket.

Whoever can reach the port can still use it: put a proxy with accounts in front, or serve with `--read-only`.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import Any
from urllib.parse import urlsplit

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = "STPATH_UI_HOSTS"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_READING = ("GET", "HEAD", "OPTIONS")


def refusal(scope: Scope, hosts: Container[str]) -> str | None:
    """Return why an ASGI request is refused, or None if it may pass."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
    host, is_websocket = headers.get("host", ""), scope["type"] == "websocket"
    if _name_of(f"//{host}") not in hosts:
        return f"host {host[:80]!r} is not served here; name it in {HOSTS}"
    method = "GET" if is_websocket else scope["method"]
    origin = headers.get("origin")
    if (is_websocket or method not in _READING) and origin is not None and urlsplit(origin).netloc != host:
        return f"the page {origin[:80]!r} may not do this"
    if scope["path"].rstrip("/").endswith("/graphql") and not is_websocket:
        if method in _READING and scope.get("query_string"):
            return "GraphQL is asked by POST"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            return "GraphQL is asked in JSON (content-type application/json)"
    return None


def guard(app: App, hosts: Iterable[str]) -> App:
    """Return an ASGI app that answers 403 to what is refused, and passes on the rest."""
    known = frozenset(name.lower() for name in hosts)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        why = None if scope["type"] == "lifespan" else refusal(scope, known)
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
    """Return the names under which the UI is served."""
    return [*_LOCAL, *(name.strip() for name in os.environ.get(HOSTS, "").split(",") if name.strip())]


def _name_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def main() -> None:
    """Serve Dagster's UI with the filter in front."""
    from dagster_webserver import cli

    server: Any = cli
    make: Callable[..., App] = server.create_app_from_workspace_process_context

    def make_guarded(*arguments: Any, **options: Any) -> App:
        return guard(make(*arguments, **options), allowed_hosts())

    server.create_app_from_workspace_process_context = make_guarded
    sys.argv[0] = "dagster-webserver"
    cli.main()


if __name__ == "__main__":
    main()
