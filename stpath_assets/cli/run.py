"""`run`: brings slides up to date, all stages."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stpath_assets.cli.options import common, complain, encoder_option, genes_option, json_option, note

if TYPE_CHECKING:
    from stpath_assets.settings import Settings


@click.command()
@click.argument("slide_ids", metavar="[SLIDE_ID...]", nargs=-1)
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
    as_json: bool,
) -> None:
    """Bring slides up to date, all stages.

    Without SLIDE_ID, all registered slides.
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
    sys.exit(bring_up_to_date(settings, slide_ids, as_json))


def bring_up_to_date(settings: "Settings", slide_ids: Sequence[str], as_json: bool = False) -> int:
    """Run slides, print the results, and return the exit code."""
    from stpath_assets.cli.terminal import progress_bars, results_table
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    store = Store.of(settings)
    rows = Registry(store).choose(slide_ids)
    with progress_bars() as listen:
        from stpath_assets.defs.materialize import materialize
        from stpath_assets.evaluation.results import rows_of
        from stpath_assets.progress import listening
        from stpath_assets.stages import Plan, check_ready

        check_ready(settings, rows)
        with listening(listen):
            outcomes = materialize(settings, [row.slide_id for row in rows])
    plan = Plan(settings)
    refused = [said for row in rows for said in plan.references(row)[1]]
    for said in dict.fromkeys([*refused, *(said for o in outcomes for said in o.notes)]):
        note(said)
    bad = [o for o in outcomes if o.errors]
    for outcome in bad:
        for reason in outcome.errors:
            complain(reason if outcome.slide_id in reason else f"{outcome.slide_id}: {reason}")
    failed = {o.slide_id for o in bad}
    results = list(rows_of(store, [row.slide_id for row in rows if row.slide_id not in failed]))
    if as_json:
        click.echo(json.dumps(results, indent=1))
    elif results:
        results_table(results)
    return 1 if bad else 0
