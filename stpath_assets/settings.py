"""Typed settings: where data and weights are, and how slides are computed.

Arguments win over `STPATH_*` environment variables, and these over `settings.toml` in the data root. An unknown key is an error.
"""

import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stpath_assets.errors import SettingsError, describe, without_secrets

DEFAULT_HOME = "~/.local/share/stpath-assets"
_PREFIX = "STPATH_"
_COMMIT, _SHA256 = r"^[0-9a-f]{40}$", r"^[0-9a-f]{64}$"

EncoderName = Literal["gigapath", "demo"]


class Settings(BaseSettings):
    """The settings of one data root. Each is also an environment variable: `STPATH_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    home: Path = Field(Path(DEFAULT_HOME), description="the data root")
    lake: str | None = Field(
        None,
        description="Postgres database of the lake's metadata, `postgres://…`; unset: lake.sqlite in the data root",
    )
    tables: str | None = Field(
        None, description="where parts of tables lie: a folder or `s3://…`; unset: tables/ in the data root"
    )
    snapshot_days: float = Field(
        30, ge=0, le=36500, description="days that `maintain` keeps earlier states of the tables"
    )
    sql_memory: str = Field(
        "4GB", pattern=r"(?i)^\d+(\.\d+)? ?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$", description="most memory of a query"
    )
    sql_threads: int = Field(4, ge=1, le=1024, description="threads of a query")
    sql_seconds: float = Field(60, gt=0, le=86400, description="time after which a query is stopped, s")
    sql_rows: int = Field(10_000_000, ge=1, description="rows that a query may return")
    encoder: EncoderName = Field("gigapath", description="`gigapath`, or `demo` for the colour and texture descriptor")
    genes: str = Field(
        "all", description="gene symbols, comma-separated, `all`, a .txt or .json of genes, or `top50:PATH`"
    )
    models: str = Field(
        "stpath",
        description="what predicts: `stpath`, and predictors that `fit` made, such as `ridge:NAME`, comma-separated",
    )
    context: str = Field(
        "",
        description="share of the measured spots that predictions in context know, then `random` or `blocks`, then a seed: "
        "`0.2 random 0`; empty: none",
    )
    allow_same_patient: str = Field(
        "",
        description="slides that may be predicted by predictors fitted to other slides of their patient, comma-separated",
    )
    weights: Path | None = Field(None, description="STPath's weights, `stfm.pth` or safetensors")
    vocabulary: Path | None = Field(None, description="STPath's `symbol2ensembl.json`")
    gigapath_weights: Path | None = Field(None, description="GigaPath's `pytorch_model.bin` or safetensors")
    pseudonym_folder: Path = Field(
        Path("~/.local/share/stpath-assets-pseudonyms"),
        description="where `add --pseudonymize` keeps its key, apart from data",
    )
    stpath_revision: str | None = Field(
        None, pattern=_COMMIT, description="commit of STPath's repository on the hub that may be downloaded, 40 digits"
    )
    weights_sha256: str | None = Field(
        None, pattern=_SHA256, description="SHA-256 that STPath's weights must have; unset: any"
    )
    gigapath_weights_sha256: str | None = Field(
        None, pattern=_SHA256, description="SHA-256 that GigaPath's weights must have; unset: any"
    )
    figure_genes: str = Field(
        "EPCAM,ERBB2,CD68,ACTA2,VIM,GNAS,FASN,CD74", description="genes that get figures where a panel has more than 12"
    )
    device: str = Field("auto", description="`auto`, `cpu` or `cuda`")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of STPath's matrix products; float32 is exact"
    )
    store_as: Literal["float32", "float16"] = Field(
        "float32", description="precision of stored predictions by STPath; float16 rounds to 0.05 % and takes less room"
    )
    encoder_precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the encoder's matrix products; `auto` is float16 on a GPU, else float32, the reference"
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="tiles a batch of the encoder; unset: what suits the device"
    )
    encoder_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="URL of the served encoder that computes the features; unset: this process does",
    )
    encoder_token: SecretStr | None = Field(
        None, description="token that the served encoder asks for; of the environment only"
    )
    encoder_token_file: Path | None = Field(
        None, description="file with the token of the served encoder; `encoder_token` wins over it"
    )
    min_tissue: float = Field(0.25, ge=0, le=1, description="least tissue fraction of a tile that is kept")
    grid: Literal["regular", "spots"] = Field(
        "regular", description="`regular`, or `spots` for tiles centred on the spots"
    )
    stride: float = Field(1.0, ge=0.1, le=10, description="distance between tiles of a regular grid, tile sides")
    quality_filter: bool = Field(True, description="whether tiles under pen, blank, grey or blurred are dropped")
    unreadable: Literal["fail", "drop"] = Field(
        "fail", description="what becomes of tiles whose pixels cannot be decoded: the slide fails, or they are dropped"
    )
    failure_webhook: SecretStr | None = Field(
        None,
        description="URL to which failed runs are posted; only as an environment variable, because it may hold a secret",
    )
    ui_hosts: str = Field(
        "", description="names under which a proxy serves the Dagster UI and the viewer, comma-separated"
    )
    viewer_port: int = Field(3100, ge=1, le=65535, description="port of the slide viewer on 127.0.0.1")
    inbox: str | None = Field(
        None,
        description="folders or URLs that are watched for new scans, comma-separated; unset: inbox/ in the data root",
    )
    inbox_pattern: str = Field(
        "*", description="which scans of these are taken: patterns of their path below the folder, comma-separated"
    )
    inbox_wait_s: float = Field(
        120, ge=0, le=86400, description="most time that new scans wait for others, so that they share a run, s"
    )
    slides_per_run: int = Field(
        16, ge=1, le=1000, description="slides that a backfill takes through all stages in one run"
    )
    open_seconds: float = Field(
        120,
        gt=0,
        le=86400,
        description="time in which a file from outside must be read, s; only as an environment variable",
    )
    open_memory_gb: float = Field(
        8, ge=0.5, le=4096, description="memory that reading it may take, GB; only as an environment variable"
    )
    max_lost: float = Field(0.3, ge=0, le=1, description="share of tiles lost to the filter from which the check warns")

    _asked: dict[str, str] = PrivateAttr(default_factory=dict)
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def __str__(self) -> str:
        """Format one line per setting: name, value, and where the value comes from. Tokens and passwords are hidden."""
        values = {name: without_secrets(str(getattr(self, name))) for name in type(self).model_fields}
        wide = [max(map(len, column)) for column in (values, values.values())]
        return "\n".join(f"{k:{wide[0]}}  {v:{wide[1]}}  {self.origins[k]}" for k, v in values.items())

    @property
    def origins(self) -> dict[str, str]:
        """Where each value comes from: `argument`, an environment variable, the path of a settings.toml, or `default`."""
        return {name: self._origins.get(name, "default") for name in type(self).model_fields}

    @property
    def asked(self) -> dict[str, str]:
        """Encoder, genes, models and context that a command or run names itself. They are stored with the slides of the run."""
        return self._asked

    def for_slide(self, encoder: str | None, genes: str | None, models: str | None, context: str | None) -> "Settings":
        """Return the settings of one slide: encoder, genes, models and context of its last run, unless set explicitly now."""
        last = {"encoder": encoder, "genes": genes, "models": models, "context": context}
        kept = {k: v for k, v in last.items() if v is not None and k not in self.model_fields_set}
        return self.model_copy(update=kept) if kept else self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment. `load_settings` reads the file, because it knows the data root."""
        return init_settings, env_settings


def split_genes(text: str) -> list[str]:
    """Return gene symbols from a comma-separated text. Raises `SettingsError` if there is none."""
    genes = [g.strip() for g in text.split(",") if g.strip()]
    if not genes:
        raise SettingsError(f"no gene in {text!r}; give symbols separated by commas, or all")
    return genes


def load_settings(home: Path | str | None = None, **overrides: Any) -> Settings:
    """Return the settings of a data root: `home`, else STPATH_HOME, else the default.

    Overrides that are None count as not given. Raises `SettingsError` with the wrong or unknown setting.
    """
    root = Path(home or os.environ.get(f"{_PREFIX}HOME") or DEFAULT_HOME).expanduser().absolute()
    given = {k: v for k, v in overrides.items() if v is not None}
    try:
        _refuse_unknown("the environment", [k for k in os.environ if k.startswith(_PREFIX)], prefix=_PREFIX)
        in_file = _read_file(root / "settings.toml")
        # The environment wins over the file.
        in_environment = {n for n in Settings.model_fields if f"{_PREFIX}{n}".upper() in os.environ}
        rest = {k: v for k, v in in_file.items() if k not in given and k not in in_environment}
        settings = Settings(**{**rest, **given, "home": root})
    except ValidationError as e:
        first = e.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise SettingsError(f"setting {name}: {first['msg']}, got {first['input']!r}; see docs/settings.md") from e
    settings._asked.update({k: str(given[k]) for k in ("encoder", "genes", "models", "context") if k in given})
    variables = {name: f"{_PREFIX}{name}".upper() for name in in_environment}
    settings._origins.update(
        {**dict.fromkeys(rest, str(root / "settings.toml")), **variables, **dict.fromkeys(given, "argument")}
    )
    if home is not None:
        settings._origins["home"] = "argument"
    return settings


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"{path}: is not TOML ({describe(e)}); correct it") from e
    _refuse_unknown(str(path), list(values))
    if "home" in values:
        raise SettingsError(f"{path}: home is where this file lies; remove it, and set STPATH_HOME or give --home")
    if "encoder_token" in values:
        raise SettingsError(f"{path}: it must not hold a token; set STPATH_ENCODER_TOKEN, or name encoder_token_file")
    if "failure_webhook" in values:
        raise SettingsError(
            f"{path}: it must not hold a webhook, whose URL may be a secret; set STPATH_FAILURE_WEBHOOK"
        )
    limit = next((name for name in ("open_seconds", "open_memory_gb") if name in values), None)
    if limit:
        raise SettingsError(
            f"{path}: {limit} holds for all data roots of a machine; set {_PREFIX}{limit.upper()} in the environment"
        )
    for name in ("weights", "vocabulary", "gigapath_weights", "encoder_token_file", "pseudonym_folder"):
        if name in values:
            # Relative to the file, so that a data root can be moved as a whole.
            values[name] = path.parent / Path(values[name]).expanduser()
    return values


def _refuse_unknown(where: str, names: list[str], prefix: str = "") -> None:
    known = {name if not prefix else f"{prefix}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(set(names) - known)
    if unknown:
        raise SettingsError(f"{where}: unknown setting {unknown[0]}; known: {', '.join(sorted(known))}")


class _Module(ModuleType):
    """This module, made callable: `stpath_assets.settings()` returns the settings that notebook calls use."""

    def __call__(self, home: Path | str | None = None) -> Settings:
        return load_settings(home)


# A submodule hides any function of the same name in its package, so the module itself is the function.
sys.modules[__name__].__class__ = _Module
