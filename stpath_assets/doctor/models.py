"""Checks of what computes: scan readers, the device, weights and vocabulary, and the served encoder."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stpath_assets import weights
from stpath_assets.doctor.check import Check, attempt
from stpath_assets.errors import FeatureError, StpathError, describe
from stpath_assets.features import EncoderChoice
from stpath_assets.prediction import ModelChoice
from stpath_assets.settings import Settings
from stpath_assets.weights import hashes

READERS = {"tiffslide": "tiffslide", "openslide": "openslide-python"}

TOLERANCES = {"float32": (0.9999, 0.01), "bfloat16": (0.999, 0.05), "float16": (0.999, 0.05)}
"""Minimum cosine similarity and maximum difference from the published embedding, by precision. 0.01 is the tolerance of the
model card.
"""


def readers() -> Iterator[Check]:
    """Check that the libraries that read scans can be loaded."""
    for module, package in READERS.items():
        try:
            importlib.import_module(module)
            yield Check(f"reader {module}", True, version(package))
        except (ImportError, OSError, PackageNotFoundError) as e:
            said = f"cannot be loaded ({describe(e)})"
            yield Check(f"reader {module}", False, said, f"install it again: pip install {package}")


def device(settings: Settings) -> Check:
    """Show the device and precision that a run would use."""

    def look() -> str:
        shown = name = weights.choose_device(settings.device)
        if name.startswith("cuda"):
            import torch

            shown = f"{name} ({torch.cuda.get_device_name(name)})"
        precision = EncoderChoice.of(settings.encoder, settings).used_precision()
        return f"{shown}, encoder {settings.encoder} in {precision}, torch {version('torch')}"

    return attempt("device", look)


def weights_files(settings: Settings, checksums: bool = True) -> Iterator[Check]:
    """Check that the weights exist and, with `checksums`, have the SHA-256 that was computed before."""
    if settings.encoder == "demo":
        yield Check("gigapath weights", True, "not needed: the encoder is demo")
    else:
        encoder = EncoderChoice.of("gigapath", settings)
        yield _file("gigapath weights", encoder.path, encoder.published, checksums)
    model = ModelChoice.for_encoder(settings.encoder, settings)
    yield _file("stpath weights", model.weights, model.published, checksums)


def _file(name: str, local: Path | None, published: weights.HubFile, checksums: bool) -> Check:
    try:
        path = weights.find_present(local, published)
        if not checksums:
            return Check(name, True, f"{path}, not read")
        sha256, known = hashes.verify(path)
    except StpathError as e:
        return Check(name, False, str(e))
    if known not in (None, sha256):
        said = (
            f"{path}: its content changed (SHA-256 {sha256[:12]}…, was {str(known)[:12]}…), "
            "but its size and time did not"
        )
        return Check(name, False, said, "the disk has damaged it: fetch it again; if you changed it yourself, touch it")
    return Check(name, True, f"{path}, SHA-256 {sha256[:12]}…{'' if known is None else ', as before'}")


def vocabulary(settings: Settings, checksums: bool = True) -> Check:
    """Check that STPath's vocabulary can be read and, with `checksums`, that it fits the checkpoint."""
    chosen = ModelChoice.for_encoder(settings.encoder, settings)

    def look() -> str:
        if not checksums and chosen.vocabulary is not None:
            return f"{len(chosen.load_vocabulary())} genes, the checkpoint was not read"
        model = replace(chosen, weights=weights.find_present(chosen.weights, chosen.published)).load()
        return f"{len(model.vocabulary)} genes, as the checkpoint has"

    return attempt("stpath vocabulary", look)


def server(settings: Settings) -> Check:
    """Check that the served encoder, if one is set, answers and is the one that a step would expect."""
    if settings.encoder_url is None:
        return Check("served encoder", True, "not used: STPATH_ENCODER_URL is not set")

    def look() -> str:
        from stpath_assets.features import embedder_of

        facts = embedder_of(settings).facts()
        return f"{settings.encoder_url} serves {facts['encoder']} in {facts['encoder_precision']}"

    return attempt("served encoder", look)


def compare_with_published(settings: Settings, tile: Path, embedding: Path) -> Check:
    """Embed a tile with GigaPath and compare with its published embedding, within the tolerance of the precision.

    The tile goes through GigaPath's own transform: resized to 256 px, cropped to the middle 224.
    """

    def look() -> str:
        expected = read_embedding(embedding)
        choice = EncoderChoice.of("gigapath", settings)
        encoder = replace(choice, path=weights.find_present(choice.path, choice.published)).load()
        found = encoder.encode(read_tile(tile)[None])[0]
        if found.shape != expected.shape:
            raise FeatureError(f"{embedding.name}: has {len(expected)} numbers, the encoder gives {len(found)}")
        cosine = float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))
        difference = float(np.abs(found - expected).max())
        least, most = TOLERANCES[choice.used_precision()]
        said = f"{tile.name}: cosine similarity {cosine:.6f}, largest difference {difference:.2g} ({choice.used_precision()})"
        # Written so that NaN fails the check.
        if not (cosine >= least and difference <= most):
            raise FeatureError(
                f"{said}; at least {least} and at most {most} are needed: check that the pair belongs together and the weights "
                "are GigaPath's"
            )
        return said

    return attempt("gigapath", look)


def read_tile(path: Path) -> npt.NDArray[np.uint8]:
    """Return a picture as GigaPath's own transform shows it to the encoder, (224, 224, 3) uint8 RGB."""
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-untyped]

    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise FeatureError(f"{path}: cannot be read as a picture ({type(e).__name__}); give a PNG") from e
    return np.array(Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)])(pixels))


def read_embedding(path: Path) -> npt.NDArray[np.float64]:
    """Return the embedding of one tile, (D,) float64, from a `torch.save` file. Accepts a leading axis of 1."""
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpicklers of damaged files raise anything
        raise FeatureError(f"{path}: cannot be read as a tensor ({type(e).__name__}); give the published .pt") from e
    if not isinstance(value, torch.Tensor) or value.numel() != value.shape[-1:].numel() or value.numel() == 0:
        raise FeatureError(f"{path}: is not the embedding of one tile; give the published .pt")
    return np.asarray(value.detach().double().reshape(-1))
