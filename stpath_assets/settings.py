"""One typed Settings: where data and weights are, and what is computed where nothing else is asked for.

Read, first to last, from arguments, `STPATH_*` environment variables, and `settings.toml` in the data root. A key that is
not a setting is an error.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stpath_assets.errors import SettingsError

DEFAULT_HOME = "~/.local/share/stpath-assets"
_PREFIX = "STPATH_"

EncoderName = Literal["gigapath", "demo"]


class Settings(BaseSettings):
    """The settings of one data root. Each is also an environment variable: `STPATH_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    home: Path = Field(Path(DEFAULT_HOME), description="the data root")
    encoder: EncoderName = Field("gigapath", description="`gigapath`, or `demo` for the colour and texture descriptor")
    genes: str = Field("demo-panel", description="gene symbols, comma-separated, or `all`")
    weights: Path | None = Field(None, description="STPath's weights, `stfm.pth` or safetensors")
    vocabulary: Path | None = Field(None, description="STPath's `symbol2ensembl.json`")
    gigapath_weights: Path | None = Field(None, description="GigaPath's `pytorch_model.bin` or safetensors")
    device: str = Field("auto", description="`auto`, `cpu` or `cuda`")
    batch_size: int = Field(16, ge=1, le=4096, description="tiles a batch of the encoder")
    min_tissue: float = Field(0.25, ge=0, le=1, description="least tissue fraction of a tile that is kept")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over the environment; the file is read by `load`, which knows the data root."""
        return init_settings, env_settings
