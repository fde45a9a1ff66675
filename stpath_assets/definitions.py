"""The Dagster code location: what `workspace.yaml` and `dg` load."""

from stpath_assets.defs.build import build_defs

defs = build_defs()
