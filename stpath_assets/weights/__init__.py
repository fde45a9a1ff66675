"""Model weights: where the files are, what they hold, and the device they are loaded on.

`files` finds and reads them, `hub` fetches them from Hugging Face, `hashes` remembers their SHA-256, `device` chooses where to
compute. Which network they belong to is known in `features` and `prediction`. Importing it imports no torch.
"""

from stpath_assets.weights.device import Precision, choose_device, choose_precision
from stpath_assets.weights.files import GIGAPATH, STPATH, locate, present, read_state_dict
from stpath_assets.weights.hub import HubFile

__all__ = [
    "GIGAPATH",
    "STPATH",
    "HubFile",
    "Precision",
    "choose_device",
    "choose_precision",
    "locate",
    "present",
    "read_state_dict",
]
