"""One dynamic partition a slide, never a tile. Dagster checks no key: ours are checked by the registry."""

import dagster as dg

from stpath_assets.slides import Registry

SLIDES = dg.DynamicPartitionsDefinition(name="slides")


def sync(instance: dg.DagsterInstance, registry: Registry) -> list[str]:
    """Makes the partitions the live slides, and returns their ids, sorted."""
    live = [row.slide_id for row in registry.live()]
    known = set(instance.get_dynamic_partitions(str(SLIDES.name)))
    instance.add_dynamic_partitions(str(SLIDES.name), [s for s in live if s not in known])
    for gone in known - set(live):
        instance.delete_dynamic_partition(str(SLIDES.name), gone)
    return live
