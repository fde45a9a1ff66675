"""The warm encoder: loaded once in the replicas of a Ray Serve application, used by the steps of many runs.

`server` is what runs on the cluster, `bridge` the process that speaks with it, `client` the embedder that a step uses, `deploy`
what `stpath-assets gigapath serve` does. Ray is imported only where it is used, and is an extra: `stpath-assets[ray]`.
"""

from functools import lru_cache

from stpath_assets.features.encoders import EncoderChoice
from stpath_assets.features.local import Embedder
from stpath_assets.settings import Settings

__all__ = ["ray_embedder"]


def ray_embedder(settings: Settings, choice: EncoderChoice) -> Embedder:
    """The embedder that sends tiles to the cluster that the settings name, one for all slides of a process."""
    assert settings.ray_address is not None
    return _embedder(settings.ray_address, choice)


@lru_cache(maxsize=1)
def _embedder(address: str, choice: EncoderChoice) -> Embedder:
    from stpath_assets.features.serving.client import RayEmbedder

    return RayEmbedder(address, choice)
