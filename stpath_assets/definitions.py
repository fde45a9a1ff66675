"""The Dagster code location, which `workspace.yaml` and `dg` load."""

from stpath_assets.defs.build import code_location

defs = code_location()
