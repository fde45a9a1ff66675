"""Typed configuration that returns plain domain objects, so that assets never see a wrapper."""

import dagster as dg
from pydantic import Field

from stpath_assets.errors import StpathError
from stpath_assets.settings import Settings, load_settings


class SettingsConfig(dg.Config):
    """Settings that a run may override. Empty fields come from the environment, the root's settings.toml and the slide's last
    run. Given values are stored with the slide.
    """

    home: str | None = Field(None, description="data root; empty: STPATH_HOME or the default")
    encoder: str | None = Field(None, description="`gigapath` or `demo`; empty: as in the settings")
    genes: str | None = Field(None, description="gene symbols, comma-separated, or `all`; empty: as in the settings")


@dg.resource(config_schema=SettingsConfig.to_config_schema(), description="The settings of the data root.")
def settings(context: dg.InitResourceContext) -> Settings:
    """Read the settings. A wrong setting fails the step with one line."""
    config = SettingsConfig(**context.resource_config)
    try:
        return load_settings(config.home, encoder=config.encoder, genes=config.genes)
    except StpathError as e:
        raise dg.Failure(str(e), allow_retries=False) from e
