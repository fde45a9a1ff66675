"""What an operator wants to know before a night's run: is everything there, whole, and what is to be done where it is not.

A check is a value, never an exception. Checks of the data root are in `root`, of weights, devices and servers in `models`;
those that ask Dagster are in `stpath_assets.defs.doctor`.
"""

from collections.abc import Iterator

from stpath_assets.doctor.check import Check
from stpath_assets.doctor.models import compare_with_published, device, readers, server, vocabulary, weights_files
from stpath_assets.doctor.root import data_root, leftovers, tables, unfinished
from stpath_assets.settings import Settings

__all__ = ["Check", "checks", "compare_with_published"]


def checks(settings: Settings) -> Iterator[Check]:
    """All checks but Dagster's, one after the other: some take seconds. Nothing is fetched from the network."""
    yield data_root(settings.home)
    yield tables(settings.home)
    yield leftovers(settings.home)
    yield unfinished(settings.home)
    yield from readers()
    yield device(settings)
    yield from weights_files(settings)
    yield vocabulary(settings)
    yield server(settings)
