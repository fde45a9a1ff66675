"""The terms that STPath knows: organs and technologies in `tokens`, genes in `genes`.

Their use in the network belongs in `prediction`.
"""

from stpath_assets.vocabulary.genes import Vocabulary

__all__ = ["Vocabulary"]
