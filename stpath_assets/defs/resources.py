"""Typed configuration that returns plain domain objects, so that assets never see a wrapper."""

from enum import Enum

import dagster as dg
from pydantic import Field

from stpath_assets.defs.processes import end_with_run, tell_process
from stpath_assets.errors import StpathError
from stpath_assets.settings import Settings, load_settings


class Encoder(Enum):
    """The encoders that a run can name."""

    gigapath = "gigapath"
    demo = "demo"


class SettingsResource(dg.ConfigurableResource):
    """The settings of the data root. Assets receive the plain `Settings`.

    What a run sets here wins over the environment, the root's settings.toml and the slide's last run. It is stored with the
    slide.
    """

    home: str | None = Field(default=None, description="Data root. Empty: STPATH_HOME or the default.")
    encoder: Encoder | None = Field(default=None, description="Encoder of the tiles. Empty: as in the settings.")
    genes: str | None = Field(
        default=None, description="Gene symbols, comma-separated, or `all`, or a panel file. Empty: as in the settings."
    )

    models: str | None = Field(
        default=None, description="`stpath` and fitted predictors such as `ridge:NAME`. Empty: as in the settings."
    )

    context: str | None = Field(
        default=None,
        description="Share of the spots that predictions in context know, as in `0.2 random 0`. Empty: as set.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Settings:
        """Read the settings. A wrong setting fails the run with one line."""
        end_with_run(context.run)
        tell_process(context.run, context.instance)
        try:
            encoder = None if self.encoder is None else self.encoder.value
            return load_settings(self.home, encoder=encoder, genes=self.genes, models=self.models, context=self.context)
        except StpathError as e:
            raise dg.Failure(str(e), allow_retries=False) from e
