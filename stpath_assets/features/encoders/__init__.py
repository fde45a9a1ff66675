"""The encoders, one file each, and the choice between them.

An encoder turns tiles into features on one device. Reading tiles and collecting features is in `local` and `embedding`;
encoders on a cluster are in `serving`.
"""

from stpath_assets.features.encoders.base import Encoder
from stpath_assets.features.encoders.choice import CODE_VERSION, EncoderChoice, extend, require_width

__all__ = ["CODE_VERSION", "Encoder", "EncoderChoice", "extend", "require_width"]
