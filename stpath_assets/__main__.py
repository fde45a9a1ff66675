"""`python -m stpath_assets` is `stpath-assets`."""

from stpath_assets.cli import main

main(prog_name="stpath-assets")
