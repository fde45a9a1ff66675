"""Checks of what computes: readers of scans, the device, weights and vocabulary, the encoder on a cluster."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets import weights
from stpath_assets.doctor.check import Check, attempt
from stpath_assets.errors import FeatureError, StpathError
from stpath_assets.features import EncoderChoice
from stpath_assets.prediction import ModelChoice
from stpath_assets.settings import Settings
from stpath_assets.weights import hashes

READERS = {"tiffslide": "tiffslide", "openslide": "openslide-python"}

TOLERANCES = {"float32": (0.9999, 0.01), "bfloat16": (0.999, 0.05), "float16": (0.999, 0.05)}
"""Least cosine similarity and largest difference of a number from the published embedding, by precision: 0.01 is what the
model's own card allows.
"""


def readers() -> Iterator[Check]:
    """Whether the libraries that read scans can be loaded."""
    for module, package in READERS.items():
        try:
            importlib.import_module(module)
            yield Check(f"reader {module}", True, version(package))
        except (ImportError, OSError, PackageNotFoundError) as e:
            said = f"cannot be loaded ({type(e).__name__}: {' '.join(str(e).split())[:100]})"
            yield Check(f"reader {module}", False, said, f"install it again: pip install {package}")


def device(settings: Settings) -> Check:
    """What would compute, and in which precision."""

    def look() -> str:
        shown = name = weights.choose_device(settings.device)
        if name.startswith("cuda"):
            import torch

            shown = f"{name} ({torch.cuda.get_device_name(name)})"
        precision = EncoderChoice.of(settings.encoder, settings).used_precision()
        return f"{shown}, encoder {settings.encoder} in {precision}, torch {version('torch')}"

    return attempt("device", look)


def weights_files(settings: Settings, checksums: bool = True) -> Iterator[Check]:
    """Whether the weights are there and, with `checksums`, are what they were when they were last hashed."""
    if settings.encoder == "demo":
        yield Check("gigapath weights", True, "not needed: the encoder is demo")
    else:
        yield _file("gigapath weights", settings.gigapath_weights, weights.GIGAPATH, checksums)
    yield _file(
        "stpath weights", ModelChoice.for_encoder(settings.encoder, settings).weights, weights.STPATH, checksums
    )


def _file(name: str, local: Path | None, published: weights.HubFile, checksums: bool) -> Check:
    try:
        path = weights.present(local, published)
        if not checksums:
            return Check(name, True, f"{path}, not read")
        sha256, known = hashes.verified(path)
    except StpathError as e:
        return Check(name, False, str(e))
    if known not in (None, sha256):
        said = (
            f"{path}: its content is no longer what it was (SHA-256 {sha256[:12]}…, was {str(known)[:12]}…), "
            "though its size and time are"
        )
        return Check(name, False, said, "the disk has damaged it: fetch it again; if you changed it yourself, touch it")
    return Check(name, True, f"{path}, SHA-256 {sha256[:12]}…{'' if known is None else ', as before'}")


def vocabulary(settings: Settings, checksums: bool = True) -> Check:
    """Whether STPath's vocabulary can be read and, with `checksums`, its checkpoint, too, and the two belong together."""
    chosen = ModelChoice.for_encoder(settings.encoder, settings)

    def look() -> str:
        if not checksums and chosen.vocabulary is not None:
            return f"{len(chosen.load_vocabulary())} genes, the checkpoint was not read"
        model = replace(chosen, weights=weights.present(chosen.weights, weights.STPATH)).load()
        return f"{len(model.vocabulary)} genes, as the checkpoint has"

    return attempt("stpath vocabulary", look)


def server(settings: Settings) -> Check:
    """Whether the served encoder answers and is the one that a step would ask for, where one is set."""
    if settings.encoder_url is None:
        return Check("served encoder", True, "not used: STPATH_ENCODER_URL is not set")

    def look() -> str:
        from stpath_assets.features import embedder_of

        facts = embedder_of(settings).facts()
        return f"{settings.encoder_url} serves {facts['encoder']} in {facts['encoder_precision']}"

    return attempt("served encoder", look)


def compare_with_published(settings: Settings, tile: Path, embedding: Path) -> Check:
    """Embeds a tile by GigaPath and compares with its published embedding: the same numbers, to the tolerance of the precision.

    The tile goes through GigaPath's own transform: scaled to 256 px, the 224 in the middle.
    """

    def look() -> str:
        expected = read_embedding(embedding)
        choice = EncoderChoice.of("gigapath", settings)
        encoder = replace(choice, path=weights.present(choice.path, weights.GIGAPATH)).load()
        found = encoder.encode(read_tile(tile)[None])[0]
        if found.shape != expected.shape:
            raise FeatureError(f"{embedding.name}: has {len(expected)} numbers, the encoder gives {len(found)}")
        cosine = float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))
        difference = float(np.abs(found - expected).max())
        least, most = TOLERANCES[choice.used_precision()]
        said = f"{tile.name}: cosine similarity {cosine:.6f}, largest difference {difference:.2g} ({choice.used_precision()})"
        # Written so that NaN fails.
        if not (cosine >= least and difference <= most):
            raise FeatureError(
                f"{said}; at least {least} and at most {most} are needed: check that the pair belongs together and the weights "
                "are GigaPath's"
            )
        return said

    return attempt("gigapath", look)


def read_tile(path: Path) -> npt.NDArray[np.uint8]:
    """A picture as GigaPath's own transform shows it to the encoder, (224, 224, 3) uint8 RGB."""
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-untyped]

    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise FeatureError(f"{path}: cannot be read as a picture ({type(e).__name__}); give a PNG") from e
    return np.array(Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)])(pixels))


def read_embedding(path: Path) -> npt.NDArray[np.float64]:
    """An embedding of one tile, (D,) float64, from a file of `torch.save`; one leading axis of 1 is taken as well."""
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpicklers of damaged files raise anything
        raise FeatureError(f"{path}: cannot be read as a tensor ({type(e).__name__}); give the published .pt") from e
    if not isinstance(value, torch.Tensor) or value.numel() != value.shape[-1:].numel() or value.numel() == 0:
        raise FeatureError(f"{path}: is no embedding of one tile; give the published .pt")
    return np.asarray(value.detach().double().reshape(-1))
