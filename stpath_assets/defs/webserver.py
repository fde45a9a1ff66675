"""Dagster's web server behind a filter: `python -m stpath_assets.defs.webserver`, with the options of `dagster-webserver`.

Dagster's server has no accounts. It also takes mutations sent by GET, from any page that a user has open, and under any host
name. The filter is the viewer's (`viewer.guard`), and beyond that a GraphQL query must come as JSON by POST, or over the UI's
own websocket.

Whoever can reach the port can still use it: put a proxy with accounts in front, or serve with `--read-only`.
"""

import sys
from collections.abc import Callable, Container
from typing import Any

from stpath_assets.viewer import guard as filter_of_pages
from stpath_assets.viewer.guard import READING, App, Scope, allowed_hosts, guard, header_of


def refusal(scope: Scope, hosts: Container[str]) -> str | None:
    """Return why an ASGI request is refused, or None if it may pass."""
    why = filter_of_pages.refusal(scope, hosts)
    if why is None and scope["path"].rstrip("/").endswith("/graphql") and scope["type"] != "websocket":
        if scope["method"] in READING and scope.get("query_string"):
            return "GraphQL is asked by POST"
        kind = (header_of(scope, "content-type") or "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            return "GraphQL is asked in JSON (content-type application/json)"
    return why


def main() -> None:
    """Serve Dagster's UI with the filter in front."""
    from dagster_webserver import cli

    server: Any = cli
    make: Callable[..., App] = server.create_app_from_workspace_process_context

    def make_guarded(*arguments: Any, **options: Any) -> App:
        return guard(make(*arguments, **options), allowed_hosts(), refusal)

    server.create_app_from_workspace_process_context = make_guarded
    sys.argv[0] = "dagster-webserver"
    cli.main()


if __name__ == "__main__":
    main()
