"""One dynamic partition per slide, never per tile. Dagster accepts any key; the registry checks ours."""

import dagster as dg

from stpath_assets.slides import Registry

SLIDES = dg.DynamicPartitionsDefinition(name="slides")


def sync(instance: dg.DagsterInstance, registry: Registry) -> list[str]:
    """Make the partitions equal to the live slides, and return their ids, sorted."""
    live = [row.slide_id for row in registry.live()]
    known = set(instance.get_dynamic_partitions(str(SLIDES.name)))
    instance.add_dynamic_partitions(str(SLIDES.name), [s for s in live if s not in known])
    for gone in known - set(live):
        instance.delete_dynamic_partition(str(SLIDES.name), gone)
    return live
