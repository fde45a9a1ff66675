"""`run`: brings slides up to date, all stages."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stpath_assets.cli.completion import slides
from stpath_assets.cli.options import common, complain, encoder_option, genes_option, json_option, note

if TYPE_CHECKING:
    from stpath_assets.progress import Listener
    from stpath_assets.settings import Settings
    from stpath_assets.slides import Registered


@click.command()
@click.argument("slide_ids", metavar="[SLIDE_ID...]", nargs=-1, shell_complete=slides)
@genes_option()
@encoder_option
@click.option("--models", help="What predicts: stpath, and fitted predictors such as ridge:NAME, comma-separated.")
@click.option(
    "--context-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the measured spots that is known, to score predictions in context; 0 is none.",
)
@click.option("--context-blocks", is_flag=True, help="Known spots lie in blocks, not at random.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the choice of known spots.")
@click.option("--recheck", is_flag=True, help="Read scans again and go through all stages, even if all is up to date.")
@json_option
@common
def run(
    slide_ids: tuple[str, ...],
    home: str | None,
    genes: str | None,
    encoder: str | None,
    models: str | None,
    context_fraction: float | None,
    context_blocks: bool,
    seed: int,
    recheck: bool,
    as_json: bool,
) -> None:
    """Bring slides up to date, all stages.

    Without SLIDE_ID, all registered slides.

    \b
    stpath-assets run
    stpath-assets run S1 S2 --genes EPCAM,ERBB2
    stpath-assets run --models stpath,ridge:NAME
    """
    from stpath_assets.prediction import panels
    from stpath_assets.settings import load_settings

    if context_fraction is None and (context_blocks or seed):
        raise click.UsageError("--context-blocks and --seed need --context-fraction")
    layout = "blocks" if context_blocks else "random"
    context = None if context_fraction is None else f"{context_fraction:g} {layout} {seed}" if context_fraction else ""
    # Stored with the slides, for later commands in other folders.
    settings = load_settings(
        home, genes=genes and panels.absolute(genes), encoder=encoder, models=models, context=context
    )
    sys.exit(bring_up_to_date(settings, slide_ids, as_json, recheck))


def bring_up_to_date(
    settings: "Settings", slide_ids: Sequence[str], as_json: bool = False, recheck: bool = False
) -> int:
    """Run slides, print the results, and return the exit code."""
    from stpath_assets.cli.terminal import progress_bars, results_table
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    store = Store.of(settings)
    rows = Registry(store).choose(slide_ids)
    ids, failed = [row.slide_id for row in rows], dict[str, list[str]]()
    with progress_bars() as listen:
        from stpath_assets.evaluation.results import rows_of
        from stpath_assets.stages import Plan, is_settled

        settled = not recheck and is_settled(settings, rows)
        if not settled:
            failed = _materialize(settings, rows, listen)
        plan = Plan(settings)
        refused = dict.fromkeys(said for row in rows for said in plan.references(row)[1])
        results = list(rows_of(store, [slide_id for slide_id in ids if slide_id not in failed]))
    for said in refused:  # predictors that may not predict a slide: each run says so
        note(said)
    if as_json:
        told = [{"slide_id": slide_id, "failed": reasons} for slide_id, reasons in failed.items()]
        click.echo(json.dumps([*results, *told], indent=1))
        return 1 if failed else 0
    if settled:
        which = f"{len(rows)} slides are" if len(rows) > 1 else f"{ids[0]} is"
        click.echo(f"{which} up to date; run --recheck reads scans again")
    results_table(results, failed)
    return 1 if failed else 0


def _materialize(settings: "Settings", rows: "Sequence[Registered]", listen: "Listener") -> dict[str, list[str]]:
    """Take slides through all stages, print notes and errors, and return the reasons of those that failed."""
    from stpath_assets.defs.materialize import materialize
    from stpath_assets.progress import listening
    from stpath_assets.stages import check_ready, settle

    check_ready(settings, rows)
    with listening(listen):
        outcomes = materialize(settings, [row.slide_id for row in rows])
    for said in dict.fromkeys(said for o in outcomes for said in o.notes):
        note(said)
    failed = {
        o.slide_id: [
            reason if reason.startswith((f"{o.slide_id}:", f"{o.slide_id}.")) else f"{o.slide_id}: {reason}"
            for reason in o.errors
        ]
        for o in outcomes
        if o.errors
    }
    for reasons in failed.values():
        for reason in reasons:
            complain(reason)
    settle(settings, [row.slide_id for row in rows if row.slide_id not in failed and "catalog" not in failed])
    return failed
