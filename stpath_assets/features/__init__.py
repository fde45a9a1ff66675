"""Features: 1536 numbers per tile, computed by an encoder.

The third stage of the data flow. It reads tiles and knows nothing about genes. Importing it does not import torch.
"""

from stpath_assets.features.embedding import Features, embed, embedder_of, read_features, store_features
from stpath_assets.features.encoders import Encoder, EncoderChoice
from stpath_assets.features.local import Embedder

__all__ = [
    "Embedder",
    "Encoder",
    "EncoderChoice",
    "Features",
    "embed",
    "embedder_of",
    "read_features",
    "store_features",
]
