"""The slide viewer: a web page on this machine with slides as deep zoom and predicted expression over them.

It shows what the lake has, and computes nothing that is stored. `pyramid` cuts scans into picture tiles, `answers` asks the
catalog, `regions` keeps what is drawn, `app` puts these behind URLs, `guard` keeps the pages of others out, and `static/` is the
page. The Dagster UI is in `defs`.
"""

from stpath_assets.viewer.app import create_app
from stpath_assets.viewer.server import link_to, serve

__all__ = ["create_app", "link_to", "serve"]
