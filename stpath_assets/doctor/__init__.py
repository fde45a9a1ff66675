"""Checks for operators before a long run: is everything there and intact, and what to do if not.

A check returns a value and never raises. Checks of the data root are in `root`, those of weights, devices and servers in
`models`. Those that need Dagster are in `stpath_assets.defs.doctor`.
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
    """Yield all checks except Dagster's as each is done, because some take seconds. Nothing is downloaded.

    Without `checksums`, the existence of the tables' files and the weights is checked, but not their content.
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
