"""The demo's material: phantom H&E slides, simulated counts on two of them, and small weights trained on one.

All of it is artificial and reproducible from seeds: no patient, no download. Slides are processed like any others, elsewhere.
`tools/train_demo.py` trains the weights.
"""

from dataclasses import dataclass
from pathlib import Path

from stpath_assets.progress import track

_SEEDS = {"phantom_A": 1, "phantom_B": 2, "phantom_C": 3}
# Scanned at a finer scale than that of the tiles, because the scale of a slide must not matter.
_MPP = {"phantom_A": 0.5, "phantom_B": 0.25, "phantom_C": 0.5}
_MEASURED = ("phantom_A", "phantom_B")
TRAINED_ON = "phantom_A"


@dataclass(frozen=True)
class DemoSlide:
    """A phantom on disk. `spots` are its simulated counts, or None.

    `held_out` is False for the phantom on which the demo weights were trained.
    """

    slide_id: str
    slide: Path
    spots: Path | None
    organ: str
    tech: str
    held_out: bool


def write_demo(folder: Path) -> list[DemoSlide]:
    """Draw the three phantoms into `folder`. Existing files are left as they are."""
    return [write_phantom(folder, s) for s in track(_SEEDS, "drawing phantom slides", len(_SEEDS))]


def write_phantom(folder: Path, slide_id: str) -> DemoSlide:
    """Draw one phantom, `phantom_A`, `phantom_B` or `phantom_C`, and its counts if it has any."""
    slide, counts = folder / f"{slide_id}.tif", folder / f"{slide_id}_counts.tsv.gz"
    selection = folder / f"{slide_id}_selection.tsv"
    wanted = [slide, counts, selection] if slide_id in _MEASURED else [slide]
    if not all(p.exists() for p in wanted):
        # Imported only for drawing: listing the demo needs no image library.
        from stpath_assets.demo.phantom import draw_phantom, write_slide
        from stpath_assets.demo.spots import simulate, write_spots

        phantom = draw_phantom(_SEEDS[slide_id], _MPP[slide_id])
        if not slide.exists():
            write_slide(phantom, slide)
        if len(wanted) > 1 and not (counts.exists() and selection.exists()):
            write_spots(simulate(phantom, _SEEDS[slide_id]), folder, slide_id)
    spots = counts if slide_id in _MEASURED else None
    return DemoSlide(slide_id, slide, spots, "Breast", "Visium", held_out=slide_id != TRAINED_ON)
