"""What an operator wants to know before a night's run: is everything there, whole, and what is to be done where it is not.

A check is a value, never an exception. Checks of the data root are in `root`, of weights, devices and servers in `models`;
those that ask Dagster are in `stpath_assets.defs.doctor`.
"""

from collections.abc import Iterator

from stpath_assets.doctor.check import Check
from stpath_assets.doctor.models import compare_with_published, device, readers, server, vocabulary, weights_files
from stpath_assets.doctor.root import (
    counts,
    data_root,
    lake,
    leftovers,
    scans,
    tables,
    unfinished,
    unknown_files,
    up_to_date,
)
from stpath_assets.settings import Settings
from stpath_assets.storage import Store

__all__ = ["Check", "checks", "compare_with_published"]


def checks(settings: Settings, checksums: bool = True) -> Iterator[Check]:
    """All checks but Dagster's, one after the other: some take seconds. Nothing is fetched from the network.

    Without `checksums` the tables' files and the weights are looked for, but not read.
    """
    store = Store.of(settings)
    first = data_root(store.place)
    yield first
    if settings.home.is_dir():
        opened = lake(store)
        yield opened
        if opened.ok:
            yield tables(store, checksums)
            if checksums:
                yield counts(store)
            yield unknown_files(store)
            yield scans(store)
            yield up_to_date(store, settings)
            yield unfinished(store)
        yield leftovers(settings.home)
    yield from readers()
    yield device(settings)
    yield from weights_files(settings, checksums)
    yield vocabulary(settings, checksums)
    yield server(settings)
