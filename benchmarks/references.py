"""Predictors fitted to one section and scored on the next: `python -m benchmarks.references`, half a minute.

C2 and C3 of her2st, beside the checkout: two sections of one patient, so a score on the other says nothing about other patients.
Demo features of tiles that are centred on spots; the 50 most variable genes of the section that was fitted to.
"""

import warnings
from typing import Any

import stpath_assets as sa
from benchmarks.tiles import SHARED, cpu_model
from stpath_assets.evaluation import PROTOCOLS
from stpath_assets.prediction.predictors import KINDS
from stpath_assets.spots import read_spots

GENES = 50
MPP = 0.687


def main() -> None:
    """Print the mean scores of each kind on each scale, both ways."""
    warnings.simplefilter("ignore")
    print(f"{cpu_model()}\n")
    slides: dict[str, Any] = {}
    for name in ("C2", "C3"):
        spots = SHARED.with_name(f"{name}_counts.tsv.gz")
        with sa.open_slide(SHARED.with_name(f"{name}.tif"), mpp=MPP) as slide:
            slides[name] = (sa.embed(sa.tile(slide, spots=read_spots(spots)), model="demo"), spots)
    print("| fitted to → scored on | scale | model | r | beyond depth | R² | mean squared error |")
    print("|---|---|---|---|---|---|---|")
    for one, other in (("C2", "C3"), ("C3", "C2")):
        for protocol in PROTOCOLS:
            scale: Any = protocol.name.rpartition(":")[2]
            for kind in KINDS:
                model: Any = kind
                fitted = sa.fit([slides[one]], name=one, model=model, scale=scale, genes=GENES)
                scores = sa.evaluate(fitted.predict(slides[other][0]), slides[other][1])
                mean = scores[scores["protocol"] == protocol.name].mean(numeric_only=True)
                r, beyond, r2, mse = (mean[c] for c in ("pearson_r", "r_beyond_depth", "r2", "mse"))
                shown = ["–" if x != x else f"{x:.2f}" for x in (r, beyond)]
                print(
                    f"| {one} → {other} | {scale} | {kind} | {shown[0]} | {shown[1]} | {r2:.2f} | {mse:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
