"""How tissue of real sections fares in the quality filter when it is blurred: `python -m benchmarks.tissue [SLIDE ...]`.

The figures of docs/tissue.md. Slides are given as PATH or PATH=MPP; by default those of the shared folder.
"""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from scipy import ndimage

import stpath_assets as sa
from benchmarks.tiles import SHARED
from stpath_assets.tiles.grid import Grid, box_means, boxes_on
from stpath_assets.tiles.quality import FOCUS_MPP, QualityParameters, measure, quality_maps, reduce_to
from stpath_assets.tiles.survey import TileParameters, survey_slide
from stpath_assets.tiles.tissue import Layers

BLURS_UM = (0, 2, 4, 6, 8)
DATA = SHARED.parents[1]
SLIDES = (str(SHARED), f"{SHARED.with_name('C3.tif')}=0.687", str(DATA / "CMU-1-Small-Region.svs"))


@click.command()
@click.argument("slides", nargs=-1)
def main(slides: tuple[str, ...]) -> None:
    """Prints a line a slide and blur, and what structure its tissue and its glass have."""
    for given in slides or SLIDES:
        path, _, mpp = given.partition("=")
        with sa.open_slide(path, float(mpp) if mpp else None) as slide:
            survey = survey_slide(slide, Path(path).stem, TileParameters())
            image, size = slide.read_scaled(FOCUS_MPP), (slide.width_px, slide.height_px)
        report(survey.slide_id, image, size, survey.candidates, survey.layers)


def report(name: str, image: npt.NDArray[np.uint8], size: tuple[int, int], tiles: Grid, layers: Layers) -> None:
    """The mask stays that of the sharp section: what is asked is what the filter sees."""
    for um in BLURS_UM:
        sigma = um / FOCUS_MPP
        blurred = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)).round().astype(np.uint8)
        maps = quality_maps(blurred, reduce_to(blurred, layers.tissue.shape), layers)
        focus = measure(maps, tiles, *size)["focus"]
        lost = (focus < QualityParameters().min_focus).mean()
        print(
            f"{name}: blurred by {um} µm: {lost:.0%} of {len(tiles)} tiles dropped, focus {np.nanmin(focus):.2f} and more"
        )
        if um == 0:
            boxes = boxes_on(layers.tissue.shape, tiles, *size)
            inside = np.maximum(box_means((maps["coarse"] > 0).astype(np.float32), *boxes), 1e-6)
            coarse = (box_means(maps["coarse"], *boxes) / inside).min()
            whole = Layers(np.ones_like(layers.tissue), layers.pen, layers.blank, layers.glass)
            glass = quality_maps(image, reduce_to(image, layers.tissue.shape), whole)["fine"][
                layers.blank & ~layers.tissue
            ]
            print(f"{name}: mean square of 4 to 12 µm in tissue {coarse:.0f} and more; of what is finer on glass, 95 % below "
                  f"{np.percentile(glass, 95):.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
