"""The jobs: `main` brings one slide up to date through all stages, `rebuild_catalog` renews the views over all."""

import warnings

import dagster as dg

# A job of stages that are filled in batches of different sizes is filled slide by slide: so it is meant (`assets.batches`).
warnings.filterwarnings("ignore", message="Asset job main materializes assets with varying BackfillPolicies")

main = dg.define_asset_job(
    "main",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("catalog"),
    description="All stages of a slide, from the scan to its scores. What is up to date is not computed again.",
)

rebuild_catalog = dg.define_asset_job(
    "rebuild_catalog", selection=dg.AssetSelection.assets("catalog"), description="Rebuilds the views over all slides."
)
