"""`import`: brings results of other tools, gene sets and a lab's own tables into the catalog."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stpath_assets.cli.options import answer, common, json_option, note

if TYPE_CHECKING:
    from stpath_assets.storage import Store

_file = click.argument("file", type=click.Path(path_type=Path))
_method = click.option("--method", required=True, help="Tool and version that the result is of.")


@click.group("import")
def import_() -> None:
    """Bring results of other tools, gene sets and your own tables into the catalog.

    Each import is one transaction: all of a file, or nothing. docs/imports.md shows the files.

    \b
    stpath-assets import gene-sets hallmark.gmt
    stpath-assets import table clinical clinical.csv
    stpath-assets import predictions S1 deepspot.h5ad --model deepspot --licence CC-BY-NC-4.0 --unit log1p
    """


@import_.command("gene-sets")
@_file
@json_option
@common
def gene_sets(file: Path, home: str | None, as_json: bool) -> None:
    """Import gene sets from a GMT file, for signature_score.

    \b
    stpath-assets import gene-sets hallmark.gmt
    """
    from stpath_assets.imports import import_gene_sets

    names = import_gene_sets(_store(home), file)
    said = f"{len(names)} gene set{'s' * (len(names) > 1)}: select * from signature_score('{names[0]}')"
    answer(as_json, {"gene_sets": names}, said)


@import_.command("table")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--by", type=click.Choice(["patient_id", "slide_id"]), help="The key column, if the file has both.")
@click.option("--text", multiple=True, help="A column that is text, though it looks like numbers; may be repeated.")
@click.option("--remove", is_flag=True, help="Remove the table from the catalog.")
@json_option
@common
def table(
    name: str, file: Path | None, by: str | None, text: tuple[str, ...], remove: bool, home: str | None, as_json: bool
) -> None:
    """Import a table of your own as NAME, such as clinical: CSV or Parquet, one row per patient or slide.

    \b
    stpath-assets import table clinical clinical.csv
    """
    from stpath_assets.imports import import_table, remove_table

    if remove != (file is None):
        raise click.UsageError("give a FILE, or --remove")
    if file is None:
        remove_table(_store(home), name)
        said = f"{name} was removed; earlier states keep it for snapshot_days, then maintain removes its file"
        answer(as_json, {"table": name, "removed": True}, said)
        return
    columns, notes = import_table(_store(home), name, file, by, text)
    for line in notes:
        note(line)
    answer(as_json, {"table": name, "columns": list(columns)}, f"{name}: {', '.join(columns)}")


@import_.command("tile-domain")
@_file
@_method
@json_option
@common
def tile_domain(file: Path, method: str, home: str | None, as_json: bool) -> None:
    """Import tissue domains or clusters of tiles: slide_id, tile_id, domain and, if there is one, probability.

    \b
    stpath-assets import tile-domain domains.csv --method "pathologist 1"
    """
    from stpath_assets.imports import import_domains

    rows = import_domains(_store(home), file, method)
    answer(as_json, {"rows": rows}, f"{rows:,} rows of tile_domain")


@import_.command("cell-types")
@_file
@_method
@click.option("--unit", type=click.Choice(["fraction", "cells"]), required=True, help="What the values are.")
@json_option
@common
def cell_types(file: Path, method: str, unit: str, home: str | None, as_json: bool) -> None:
    """Import cell types of tiles: slide_id, tile_id, cell_type, value; a row per tile and cell type.

    \b
    stpath-assets import cell-types types.csv --method "tool 1.2" --unit fraction
    """
    from stpath_assets.imports import import_cell_types

    rows = import_cell_types(_store(home), file, method, unit)
    answer(as_json, {"rows": rows}, f"{rows:,} rows of tile_cell_types")


@import_.command("bulk")
@_file
@click.option(
    "--unit", type=click.Choice(["tpm", "cpm", "counts", "log1p_tpm", "log2p1_tpm"]), required=True,
    help="Unit of the values; log2p1_tpm is log2(1 + TPM).",
)  # fmt: skip
@json_option
@common
def bulk(file: Path, unit: str, home: str | None, as_json: bool) -> None:
    """Import bulk expression: patient_id, gene, value; or gene and a column per patient.

    \b
    stpath-assets import bulk tpm.csv --unit tpm
    """
    from stpath_assets.imports import import_bulk

    notes = import_bulk(_store(home), file, unit)
    for line in notes:
        note(line)
    answer(as_json, {"file": str(file), "notes": list(notes)}, "select * from pseudobulk_vs_bulk")


@import_.command("predictions")
@click.argument("slide_id")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--model", required=True, help="Name of the model, such as deepspot.")
@click.option("--licence", help="Licence of the model or of its predictions; unknown, if you do not know it.")
@click.option("--unit", type=click.Choice(["log1p", "counts"]), help="Unit in the file; of counts, log1p is taken.")
@click.option("--side-px", type=click.FloatRange(0, min_open=True), help="Side of the tiles, level-0 pixels.")
@click.option("--remove", is_flag=True, help="Remove the model's predictions of the slide.")
@json_option
@common
def predictions(
    slide_id: str, file: Path | None, model: str, licence: str | None, unit: str | None, side_px: float | None, remove: bool,
    home: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Import another tool's predictions of a slide, .h5ad or Parquet of tiles by genes, into stpath_predictions.

    \b
    stpath-assets import predictions S1 s1.h5ad --model deepspot --licence CC-BY-NC-4.0 --unit log1p
    """
    from stpath_assets.imports import import_predictions, remove_predictions

    if remove:
        remove_predictions(_store(home), slide_id, model)
        told = {"slide_id": slide_id, "model": model, "removed": True}
        answer(as_json, told, f"{slide_id}: the predictions by {model} were removed")
        return
    if file is None or licence is None or unit is None:
        raise click.UsageError("give a FILE with --licence and --unit, or --remove")
    tiles, genes = import_predictions(_store(home), slide_id, file, model, licence, unit, side_px)
    told = {"slide_id": slide_id, "model": model, "tiles": tiles, "genes": genes}
    answer(as_json, told, f"{slide_id}: {tiles:,} tiles, {genes:,} genes by {model}")


def _store(home: str | None) -> "Store":
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    store = Store.of(load_settings(home))
    store.open()
    return store
