"""Which encoders there are, what identifies each, and how one is loaded."""

from dataclasses import dataclass
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
    """An encoder that is chosen but not loaded: enough to say what its features would be made from.

    `name` is `gigapath`, `demo` or `timm:` and a model of timm's; `path` a local weights file, or None for the hub's;
    `precision` that of matrix products, `auto` for what suits the device.
    """

    name: str
    path: Path | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    def __post_init__(self) -> None:
        if self.name not in ENCODERS and not self.name.removeprefix(TIMM) != self.name:
            raise SettingsError(f"{self.name!r} is no encoder; known: {', '.join(ENCODERS)}, {TIMM}MODEL")
        if self.name == "demo" and self.precision not in ("auto", "float32"):
            raise SettingsError(
                f"the demo descriptor has no {self.precision}; set encoder_precision to auto or float32"
            )

    @classmethod
    def of(cls, name: str, settings: Settings, device: str | None = None) -> "EncoderChoice":
        """An encoder with its weights where the settings say."""
        path = settings.gigapath_weights if name == "gigapath" else None
        precision = "auto" if name == "demo" else settings.encoder_precision
        return cls(name, path, device or settings.device, precision)

    def load(self) -> Encoder:
        """The encoder itself, kept for the life of the process: one load serves every slide of a batch."""
        if self.name == "demo":
            return demo.DemoEncoder()
        device = weights.choose_device(self.device)
        precision = weights.choose_precision(self.precision, device)
        if self.name == "gigapath":
            return _gigapath(*self._file(), device, precision)
        return _timm(self.name.removeprefix(TIMM), self.path and _version(self.path), device, precision)

    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; of its tensors for a model of timm's; `none` for the demo descriptor, which has no
        weights.
        """
        if self.name == "demo":
            return "none"
        if self.name == "gigapath":
            return hashes.sha256_of(self._file()[0])
        return str(self.load().weights_sha256)  # type: ignore[attr-defined]

    def used_precision(self) -> Precision:
        """The precision that `auto` comes to on the device."""
        if self.name == "demo":
            return "float32"
        return weights.choose_precision(self.precision, weights.choose_device(self.device))

    def facts(self) -> dict[str, str]:
        """What features depend on beside the pixels, by the names that fingerprints use."""
        return {
            "encoder": self.name,
            "encoder_weights_sha256": self.weights_sha256(),
            "encoder_precision": self.used_precision(),
            "encoder_code": self.code_version,
        }

    def extend(self, tiles: Fingerprint) -> Fingerprint:
        """The fingerprint of features of a grid of tiles."""
        return extend(tiles, self.facts())

    @property
    def code_version(self) -> str:
        """Of the code that computes features: raised when the same pixels and weights give others."""
        return f"{CODE_VERSION}.{demo.VERSION if self.name == 'demo' else '1'}"

    def _file(self) -> tuple[Path, tuple[int, int]]:
        return _version(weights.locate(self.path, weights.GIGAPATH))


def extend(tiles: Fingerprint, facts: dict[str, str]) -> Fingerprint:
    """The fingerprint of features of a grid of tiles by an encoder of those facts, wherever it computes."""
    return tiles.extend(GIGAPATH_FEATURES.name, PIXELS_CODE_VERSION, **facts)


def require_width(slide_id: str, encoder: str, width: int) -> None:
    """Raises `FeatureError` where features are not as wide as STPath's and the table's."""
    if width != demo.DIM:
        raise FeatureError(
            f"{slide_id}: features of {encoder} are {width} wide, not {demo.DIM}: "
            "they are no GigaPath features and have no place in gigapath_features"
        )


def _version(path: Path) -> tuple[Path, tuple[int, int]]:
    """What a cache of a file goes by: another file under the same path is another one."""
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
