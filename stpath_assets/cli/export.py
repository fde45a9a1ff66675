"""`export`: writes one slide in another tool's format."""

from pathlib import Path

import click

from stpath_assets.cli.completion import slides
from stpath_assets.cli.options import answer, common, json_option

FORMS = ("h5ad", "spatialdata", "geojson", "csv", "ome", "trident", "hest")


@click.command()
@click.argument("slide_id", shell_complete=slides)
@click.option("--to", "form", type=click.Choice(FORMS), help="Format  [default: what the ending of --out means]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File or folder to write.")
@click.option("--model", help="Whose prediction: ridge:NAME, …  [default: STPath's]")
@click.option("--genes", help="Only these genes, comma-separated, in this order.")
@click.option(
    "--image",
    type=click.Choice(["reference", "copy"]),
    default="reference",
    show_default=True,
    help="spatialdata: the scan by reference with an overview, or all of it.",
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@json_option
@common
def export(
    slide_id: str,
    home: str | None,
    form: str | None,
    out: Path,
    model: str | None,
    genes: str | None,
    image: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write a slide for other tools.

    h5ad, spatialdata and csv are its stored prediction, geojson its tiles with measurements for QuPath, ome its heat maps,
    trident its tiles and features, hest a folder with the tiles' pixels.

    \b
    stpath-assets export S1 --out S1.h5ad
    stpath-assets export S1 --out S1.zarr --image copy
    stpath-assets export S1 --out S1.geojson --genes EPCAM,ERBB2
    stpath-assets export S1 --to hest --out S1_hest
    """
    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.exports import FORMATS, Wanted, format_of
    from stpath_assets.exports import export as write
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings, split_genes

    chosen = format_of(out) if form is None else FORMATS[form]
    wanted = Wanted(slide_id, model, None if genes is None else split_genes(genes), image)
    with progress_bars() as listen, listening(listen):
        write(load_settings(home), wanted, chosen, out, force=force)
    answer(as_json, {"slide_id": slide_id, "format": chosen.name, "path": str(out)}, str(out))
