"""Chooses and loads an encoder, and says what identifies it."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from stpath_assets import weights
from stpath_assets.errors import FeatureError, SettingsError
from stpath_assets.features.encoders import demo
from stpath_assets.features.encoders.base import TIMM, Encoder
from stpath_assets.settings import Settings
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import GIGAPATH_FEATURES
from stpath_assets.tiles.reader import CODE_VERSION as PIXELS_CODE_VERSION
from stpath_assets.weights import Precision, hashes

CODE_VERSION = "2"
ENCODERS = ("gigapath", "demo")


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder that is chosen but not loaded. It can already say what its features depend on.

    `name` is `gigapath`, `demo`, or `timm:` followed by a timm model name. `path` is a local weights file, or None for the hub's.
    `precision` is that of matrix products; `auto` is what suits the device.
    """

    name: str
    path: Path | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    published: weights.HubFile = weights.GIGAPATH

    def __post_init__(self) -> None:
        if self.name not in ENCODERS and not self.name.removeprefix(TIMM) != self.name:
            raise SettingsError(f"unknown encoder {self.name!r}; known: {', '.join(ENCODERS)}, {TIMM}MODEL")
        if self.name == "demo" and self.precision not in ("auto", "float32"):
            raise SettingsError(
                f"the demo descriptor has no {self.precision}; set encoder_precision to auto or float32"
            )

    @classmethod
    def of(cls, name: str, settings: Settings, device: str | None = None) -> "EncoderChoice":
        """Return an encoder with the weights and precision of the settings."""
        path = settings.gigapath_weights if name == "gigapath" else None
        precision = "auto" if name == "demo" else settings.encoder_precision
        published = replace(weights.GIGAPATH, sha256=settings.gigapath_weights_sha256)
        return cls(name, path, device or settings.device, precision, published)

    def load(self) -> Encoder:
        """Return the loaded encoder. It stays loaded for the life of the process, so a batch of slides loads it once."""
        if self.name == "demo":
            return demo.DemoEncoder()
        device = weights.choose_device(self.device)
        precision = weights.choose_precision(self.precision, device)
        if self.name == "gigapath":
            return _gigapath(*self._file(), device, precision)
        return _timm(self.name.removeprefix(TIMM), self.path and _version(self.path), device, precision)

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the weights file, for a timm model that of its tensors, and `none` for the demo descriptor."""
        if self.name == "demo":
            return "none"
        if self.name == "gigapath":
            return hashes.sha256_of(self._file()[0])
        return str(self.load().weights_sha256)  # type: ignore[attr-defined]

    def used_precision(self) -> Precision:
        """Return the precision on the device, with `auto` resolved."""
        if self.name == "demo":
            return "float32"
        return weights.choose_precision(self.precision, weights.choose_device(self.device))

    def facts(self) -> dict[str, str]:
        """Return what features depend on besides the pixels, by the names of fingerprints."""
        return {
            "encoder": self.name,
            "encoder_weights_sha256": self.weights_sha256(),
            "encoder_precision": self.used_precision(),
            "encoder_code": self.code_version,
        }

    def extend(self, tiles: Fingerprint) -> Fingerprint:
        """Return the fingerprint of the features of a grid of tiles."""
        return extend(tiles, self.facts())

    @property
    def code_version(self) -> str:
        """Version of the code that computes features: raised when the same pixels and weights give other features."""
        return f"{CODE_VERSION}.{demo.VERSION if self.name == 'demo' else '1'}"

    def _file(self) -> tuple[Path, tuple[int, int]]:
        return _version(weights.locate(self.path, self.published))


def extend(tiles: Fingerprint, facts: dict[str, str]) -> Fingerprint:
    """Return the fingerprint of the features of a grid of tiles by an encoder with these facts, wherever it computes."""
    return tiles.extend(GIGAPATH_FEATURES.name, PIXELS_CODE_VERSION, **facts)


def require_width(slide_id: str, encoder: str, width: int) -> None:
    """Raise `FeatureError` if features do not have the width of STPath and of the table."""
    if width != demo.DIM:
        raise FeatureError(
            f"{slide_id}: features of {encoder} have width {width}, not {demo.DIM}: "
            "they are not GigaPath features and cannot be stored in gigapath_features"
        )


def _version(path: Path) -> tuple[Path, tuple[int, int]]:
    """Return a file's cache key: another file at the same path has another key."""
    state = path.stat()
    return path, (state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=1)
def _gigapath(path: Path, _state: tuple[int, int], device: str, precision: Precision) -> Encoder:
    from stpath_assets.features.encoders.gigapath import load

    return load(path, device, precision)


@lru_cache(maxsize=1)
def _timm(name: str, file: Any, device: str, precision: Precision) -> Encoder:
    from stpath_assets.features.encoders.timm_models import load

    return load(name, file and file[0], device, precision)
