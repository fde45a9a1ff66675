"""Features: what an encoder sees in each tile, 1536 numbers a tile.

Third stage of the way of the data: reads tiles, knows nothing of genes. Importing it imports no torch.
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
