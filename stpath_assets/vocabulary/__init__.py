"""The words that STPath knows: organs and technologies in `tokens`, genes in `genes`.

What the network makes of them belongs in `prediction`.
"""

from stpath_assets.vocabulary.genes import Vocabulary

__all__ = ["Vocabulary"]
