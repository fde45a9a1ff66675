"""Features: what an encoder sees in each tile, 1536 numbers a tile.

Third stage of the way of the data: reads tiles, knows nothing of genes. Importing it imports no torch.
"""

from stpath_assets.features.embedding import (
    Encoder,
    EncoderChoice,
    Features,
    embed,
    read_features,
    store_features,
)

__all__ = ["Encoder", "EncoderChoice", "Features", "embed", "read_features", "store_features"]
