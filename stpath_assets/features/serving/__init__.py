"""The warm encoder: loaded once in the replicas of a Ray Serve application, and used by the steps of many runs.

A step talks to it over HTTP and needs no Ray: `client` is the step's side, `messages` the protocol, `token` the shared secret.
`server` runs on the cluster; `deploy` and `cluster` put it there. These three need Ray, an extra: `stpath-assets[ray]`.
"""

from functools import lru_cache

from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import Embedder
from stpath_assets.settings import Settings

__all__ = ["served_embedder"]


def served_embedder(settings: Settings, choice: EncoderChoice) -> Embedder:
    """Return the embedder that uses the server of the settings, one for all slides of a process."""
    from stpath_assets.features.serving.token import read_token

    assert settings.encoder_url is not None
    return _embedder(settings.encoder_url, read_token(settings), choice)


@lru_cache(maxsize=1)
def _embedder(url: str, token: str | None, choice: EncoderChoice) -> Embedder:
    from stpath_assets.features.serving.client import ServedEmbedder

    return ServedEmbedder(url, token, choice)
