"""The demo's data root: its settings, its phantoms in the inbox, and their registration."""

from pathlib import Path

from stpath_assets.demo import DemoSlide, write_demo
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, atomic_file


def prepare(settings: Settings) -> list[DemoSlide]:
    """Draw the phantoms into the inbox of a data root, and register them."""
    keep_settings(settings.home)
    slides = write_demo(settings.home / "inbox")
    registry = Registry(Store.of(settings))
    for slide in slides:
        registry.add(slide.slide, organ=slide.organ, tech=slide.tech, spots=slide.spots, slide_id=slide.slide_id)
    return slides


def keep_settings(home: Path) -> None:
    """Write settings.toml if the data root has none, so that runs started in the UI use the demo encoder too."""
    path = home / "settings.toml"
    if not path.exists():
        with atomic_file(path) as draft:
            draft.write_text('# This data root holds the demo.\nencoder = "demo"\ngenes = "all"\n')
