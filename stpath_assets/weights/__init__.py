"""Model weights: finding, downloading, reading and hashing files, and choosing the device.

`files` finds and reads them, `hub` downloads them from Hugging Face, `hashes` caches their SHA-256, `device` chooses where to
compute. The networks are in `features` and `prediction`. Importing it does not import torch.
"""

from stpath_assets.weights.device import Precision, choose_device, choose_precision, own_gpu
from stpath_assets.weights.files import GIGAPATH, STPATH, find_present, locate, read_state_dict
from stpath_assets.weights.hub import HubFile

__all__ = [
    "GIGAPATH",
    "STPATH",
    "HubFile",
    "Precision",
    "choose_device",
    "choose_precision",
    "find_present",
    "locate",
    "own_gpu",
    "read_state_dict",
]
