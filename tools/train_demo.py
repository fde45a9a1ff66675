"""Trains the demo weights on phantom A only: `python -m tools.train_demo`, seeded, about a minute on two cores.

The weights learn how the phantoms are drawn, not biology. The network is in `demo_network`. Phantoms B and C are not used, so the
demo's scores on them are of true predictions.
"""

import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stpath_assets.demo import TRAINED_ON, write_phantom
from stpath_assets.demo.genes import vocabulary
from stpath_assets.evaluation.scores import score
from stpath_assets.features.encoders.demo import DIM, DemoEncoder
from stpath_assets.prediction.predict import DEMO_WEIGHTS
from stpath_assets.slides import Slide, open_slide
from stpath_assets.spots import Spots, read_spots
from stpath_assets.storage import atomic_file
from stpath_assets.tiles.grid import TILE_MPP, TILE_PX, Grid, side_in_level0
from stpath_assets.tiles.reader import read_tiles
from stpath_assets.vocabulary import Vocabulary, tokens
from tools.demo_network import GENES_FROM, Shape, forward, initial_state

WEIGHTS = DEMO_WEIGHTS.parent


@dataclass(frozen=True)
class Recipe:
    """The parameters of training. `views` is how often each spot is seen, moved by up to `shift_um`, rotated and mirrored."""

    shape: Shape = field(default_factory=Shape)
    views: int = 32
    shift_um: float = 16.0
    steps: int = 1500
    patience: int = 10
    every: int = 25
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    noise: float = 0.3
    feature_dropout: float = 0.2
    context_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """The training data: features of V views of N spots (V, N, 1536), centres (N, 2) in µm, raw counts (N, G) by column."""

    views: Tensor
    xy_um: npt.NDArray[np.float64]
    counts: Tensor

    def take(self, which: npt.NDArray) -> "Sample":
        """Return the spots of an index or a mask."""
        return Sample(self.views[:, which], self.xy_um[which], self.counts[which])


def spot_views(slide: Slide, spots: Spots, recipe: Recipe) -> Sample:
    """Cut the tiles of all views around the spots of a slide, and embed them with the demo encoder."""
    rng, encoder = np.random.default_rng(recipe.seed), DemoEncoder()
    side = side_in_level0(TILE_PX, TILE_MPP, slide.mpp)
    views = np.empty((recipe.views, len(spots.xy_px), DIM), np.float32)
    for v in range(recipe.views):
        shift = rng.uniform(-1, 1, spots.xy_px.shape) * (recipe.shift_um / slide.mpp if v else 0)
        last = np.array([slide.width_px, slide.height_px]) - side
        corner = np.round(np.clip(spots.xy_px + shift - side / 2, 0, last)).astype(np.float64)
        rows = np.arange(len(corner))
        for n, tile in enumerate(read_tiles(slide, Grid(rows, rows, corner[:, 0], corner[:, 1], side, side), TILE_PX)):
            turned = np.rot90(tile, v % 4)[:, :: -1 if v % 8 > 3 else 1]
            views[v, n] = encoder.encode(turned[None])[0]
    columns = {g: i for i, g in enumerate(spots.genes)}
    counts = spots.counts.toarray()[:, [columns[s] for s in Vocabulary.of(vocabulary()).symbols]]
    return Sample(torch.from_numpy(views), spots.xy_px * slide.mpp, torch.from_numpy(counts.astype(np.float32)))


def learn(sample: Sample, recipe: Recipe) -> tuple[dict[str, Tensor], float]:
    """Train on blocks of the section, and stop when the other blocks no longer improve.

    Returns the state of the best step and the mean Pearson r of its validation spots.
    """
    train, held = _blocks(sample)
    start = initial_state(train.views.reshape(-1, DIM), train.counts.log1p(), recipe.shape, recipe.seed)
    state = {k: v.clone().requires_grad_() for k, v in start.items()}
    decayed = [v for v in state.values() if v.ndim > 1]
    plain = [v for v in state.values() if v.ndim == 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    scale = 1 / (train.counts.log1p().var(0) + 0.1)
    best, best_r, waited = {}, -1.0, 0
    for step, loss in enumerate(_losses(state, train, scale, recipe), start=1):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.values(), 1.0)
        optimizer.step()
        if step % recipe.every == 0:
            r = _validate(state, held)
            waited = 0 if r > best_r else waited + 1
            if r > best_r:
                best, best_r = {k: v.detach().clone() for k, v in state.items()}, r
            if waited >= recipe.patience:
                break
    return best, best_r


def _losses(state: dict[str, Tensor], train: Sample, scale: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Yield the loss of each step, on a random version of the section: views, rotation, tokens, context and noise are drawn."""
    rng, draw = np.random.default_rng(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    target = train.counts.log1p()
    deviation = train.views.reshape(-1, DIM).std(0)
    spots = np.arange(len(target))
    for _ in range(recipe.steps):
        which = rng.random(len(spots)) < rng.uniform(0.4, 1)
        x = train.views[rng.integers(recipe.views, size=len(spots)), spots][which]
        x = x + recipe.noise * deviation * torch.randn(x.shape, generator=draw)
        # Dropped features become their mean, on which the embedding was centred.
        dropped = torch.rand(DIM, generator=draw) < recipe.feature_dropout
        x = torch.where(dropped, train.views.mean((0, 1)), x)
        xy = train.xy_um[which] @ _turn(rng.uniform(0, 2 * np.pi))
        context = None
        if rng.random() < 0.5:
            context = torch.where(
                torch.rand(len(x), 1, generator=draw) < recipe.context_share, target[which], torch.nan
            )
        y = forward(state, x, xy, *_tokens(rng), context)[:, GENES_FROM:]
        yield (scale * (y - target[which]) ** 2).mean()


def _tokens(rng: np.random.Generator) -> tuple[int, int]:
    """Return the sample's own tokens half of the time, padding a quarter of the time, else any: names must not matter for a
    phantom.
    """
    kind = rng.random()
    if kind < 0.5:
        return tokens.organ_id("Breast"), tokens.tech_id("Visium")
    return (0, 0) if kind < 0.75 else (int(rng.integers(len(tokens.ORGANS))), int(rng.integers(len(tokens.TECHS))))


def _turn(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _blocks(sample: Sample, block_um: float = 260.0) -> tuple[Sample, Sample]:
    """Split spots into training and validation by blocks of the section, because neighbours share pixels."""
    x, y = (sample.xy_um // block_um).astype(int).T
    held = (x + 2 * y) % 5 == 0
    return sample.take(~held), sample.take(held)


def _validate(state: dict[str, Tensor], held: Sample) -> float:
    """Return the mean Pearson r over the genes that vary, on the unmoved views."""
    with torch.no_grad():
        y = forward(state, held.views[0], held.xy_um, tokens.organ_id("Breast"), tokens.tech_id("Visium"))
    return float(np.nanmean(score(y[:, GENES_FROM:].numpy(), np.log1p(held.counts.numpy()))["pearson_r"]))


def save(state: dict[str, Tensor], folder: Path) -> None:
    """Write `stfm-demo.pth`, a plain state dict, and `symbol2ensembl-demo.json`."""
    with atomic_file(folder / "symbol2ensembl-demo.json") as draft:
        draft.write_text(json.dumps(vocabulary(), indent=0) + "\n")
    packed = io.BytesIO()
    torch.save({k: v.contiguous() for k, v in state.items()}, packed)
    with atomic_file(folder / "stfm-demo.pth") as draft:
        draft.write_bytes(packed.getvalue())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=WEIGHTS, help="folder for the two files")
def main(out: Path) -> None:
    """Draw phantom A, train the demo weights on its spots, and write them."""
    torch.set_num_threads(2)
    recipe = Recipe()
    with tempfile.TemporaryDirectory() as folder:
        drawn = write_phantom(Path(folder), TRAINED_ON)
        assert drawn.spots is not None
        with open_slide(drawn.slide) as slide:
            sample = spot_views(slide, read_spots(drawn.spots), recipe)
    state, r = learn(sample, recipe)
    save(state, out)
    click.echo(
        f"{len(sample.xy_um)} spots; mean Pearson r {r:.3f} on the blocks of {TRAINED_ON} kept for validation; wrote {out}"
    )


if __name__ == "__main__":
    main()
