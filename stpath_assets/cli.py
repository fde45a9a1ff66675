"""The command line: thin, it resolves settings, calls the domain or Dagster, and prints.

Errors are one line on stderr with what to do next, exit code 1 (2 for wrong usage), no traceback unless --debug. What a
command needs is imported inside it: `--help` and `sql` start without torch and dagster.
"""

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from stpath_assets.errors import SlideError, StpathError, one_line

Command = Callable[..., Any]


def _common(command: Command) -> Command:
    """--home and --debug, and errors as one line."""

    @click.option("--home", type=click.Path(file_okay=False), help="Data root  [default: $STPATH_HOME]")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        warnings.showwarning = _one_line_warning if not debug else warnings.showwarning
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # `sql ... | head`: click ends quietly
        except (StpathError, OSError) as e:
            if debug:
                raise
            _complain(f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.filename else str(e))
            sys.exit(1)

    return wrapped


def _complain(message: str) -> None:
    click.echo(f"error: {one_line(message)}", err=True)


def _one_line_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Others, such as a library's deprecations, are for developers.
    if category is UserWarning:
        click.echo(f"note: {one_line(str(message))}", err=True)


def _scale(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> float | tuple[float, float] | str | None:
    """The value of --mpp: a number, two, of x and y, or `file`."""
    if value is None or value == "file":
        return value
    try:
        x, *y = map(float, value.split(","))
        if len(y) > 1:
            raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no scale: give µm per pixel, or X,Y where pixels are not square; file is the file's own"
        ) from None
    return (x, y[0]) if y else x


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stpath-assets")
def main() -> None:
    """From H&E whole-slide scans to predicted spatial gene expression that you can query."""


@main.command()
@click.argument("scans", metavar="SLIDE...", nargs=-1, required=True, type=click.Path())
@click.option("--organ", help="Organ, by STPath's names (Breast, Brain, ...); or none.")
@click.option("--tech", help="Technology: Visium, ST, Xenium or Visium HD; or none.")
@click.option(
    "--mpp", callback=_scale, help="µm per pixel at level 0, where the file does not say; X,Y if not square; or file."
)
@click.option(
    "--spots", type=click.Path(), help="Measured expression: *_counts.tsv.gz, .h5ad or a Visium folder; or none."
)
@click.option(
    "--regions", type=click.Path(), help="GeoJSON of regions that replace or restrict the tissue mask; or none."
)
@click.option("--features", type=click.Path(), help="TRIDENT's .h5 of GigaPath features, in place of ours; or none.")
@click.option("--patient", help="Patient that the section is of.")
@click.option("--id", "slide_id", help="A slide_id of your own.")
@_common
def add(scans: tuple[str, ...], home: str | None, **known: Any) -> None:
    """Register scans with what is known of them. They are read where they are."""
    from stpath_assets.features import trident
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry, scale
    from stpath_assets.storage import Store

    if len(scans) > 1 and any(known[name] for name in ("slide_id", "spots", "regions", "features")):
        raise click.UsageError("--id, --spots, --regions and --features belong to one slide: add it by itself")
    settings = load_settings(home)
    registry, added, notes = Registry(Store.of(settings)), 0, list[str]()
    for scan in scans:
        try:
            notes.clear()
            row = registry.add(scan, check=lambda row: notes.extend(trident.check(row)), **known)
        except StpathError as e:
            _complain(str(e))
            continue
        added += 1
        for warning in (*row.warnings, *notes):
            click.echo(f"note: {one_line(warning)}", err=True)
        click.echo(
            f"{row.slide_id}: {row.width_px} x {row.height_px} px, {scale.text(row.mpp_xy, 'g')} µm/px ({row.mpp_source}), "
            f"{row.organ or 'organ not given'}, {row.tech or 'technology not given'}"
        )
    if added:
        from stpath_assets.defs.materialize import sync_partitions

        sync_partitions(settings)
    sys.exit(0 if added == len(scans) else 1)


@main.command()
@click.argument("slide_ids", metavar="[SLIDE_ID...]", nargs=-1)
@click.option("--genes", help="Gene symbols, comma-separated, all, a .txt or .json of genes, or top50:PATH.")
@click.option("--encoder", type=click.Choice(["gigapath", "demo"]))
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@_common
def run(slide_ids: tuple[str, ...], home: str | None, genes: str | None, encoder: str | None, as_json: bool) -> None:
    """Bring slides up to date, all stages; without SLIDE_ID all that are registered."""
    from stpath_assets.prediction import panels
    from stpath_assets.settings import load_settings

    # Kept with the slides, for later commands that are given in other folders.
    settings = load_settings(home, genes=genes and panels.absolute(genes), encoder=encoder)
    sys.exit(_run(settings, slide_ids, as_json))


def _run(settings: Any, slide_ids: tuple[str, ...], as_json: bool = False) -> int:
    """Runs slides and prints what became of them; the exit code."""
    from stpath_assets.storage import Store
    from stpath_assets.terminal import progress_bars, results_table

    store = Store.of(settings)
    chosen = _live(store, slide_ids)
    with progress_bars() as listen:
        from stpath_assets.defs.materialize import materialize
        from stpath_assets.progress import listening

        _check_first(settings, store, chosen)
        with listening(listen):
            outcomes = materialize(settings, chosen)
    for note in dict.fromkeys(note for o in outcomes for note in o.notes):
        click.echo(f"note: {one_line(note)}", err=True)
    bad = [o for o in outcomes if o.errors]
    for outcome in bad:
        for reason in outcome.errors:
            _complain(reason if outcome.slide_id in reason else f"{outcome.slide_id}: {reason}")
    failed = {o.slide_id for o in bad}
    _print_results(store, [s for s in chosen if s not in failed], as_json, results_table)
    return 1 if bad else 0


def _check_first(settings: Any, store: Any, slide_ids: list[str]) -> None:
    """Looks at genes and weights before any slide is touched: what is wrong with them would fail each slide in the same way."""
    from stpath_assets.features import embedder_of
    from stpath_assets.prediction import ModelChoice
    from stpath_assets.slides import Registry
    from stpath_assets.stages import Plan

    plan, registry, seen = Plan(settings), Registry(store), set[tuple[str, str, bool]]()
    for row in map(registry.get, slide_ids):
        mine = plan.settings_of(row)
        if (key := (mine.encoder, mine.genes, row.features_uri is None)) in seen:
            continue
        seen.add(key)
        model = ModelChoice.for_encoder(mine.encoder, mine)
        model.load_vocabulary().select(model.panel(mine.genes))
        if row.features_uri is None:
            embedder_of(mine).facts()


def _live(store: Any, slide_ids: tuple[str, ...]) -> list[str]:
    from stpath_assets.slides import Registry

    registry = Registry(store)
    if not slide_ids:
        live = [row.slide_id for row in registry.live()]
        if not live:
            raise SlideError(f"no slide is registered in {store.home}; add one: stpath-assets add SLIDE")
        return live
    for slide_id in slide_ids:
        if registry.get(slide_id).status != "ready":
            raise SlideError(f"{slide_id}: is {registry.get(slide_id).status}; add it again to bring it back")
    return list(dict.fromkeys(slide_ids))


def _print_results(
    store: Any, slide_ids: list[str], as_json: bool, table: Callable[[list[dict[str, Any]]], None]
) -> None:
    from stpath_assets.reports import rows_of

    rows = list(rows_of(store, slide_ids))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif rows:
        table(rows)


@main.command()
@click.argument("scan", metavar="SLIDE", type=click.Path())
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The .h5ad to write.")
@click.option("--organ")
@click.option("--tech")
@click.option(
    "--genes",
    default="all",
    show_default=True,
    help="Gene symbols, comma-separated, all, a .txt or .json of genes, or top50:PATH.",
)
@click.option("--mpp", callback=_scale, help="µm per pixel at level 0, where the file does not say; X,Y if not square.")
@click.option("--encoder", type=click.Choice(["gigapath", "demo"]))
@_common
def predict(scan: str, out: str, home: str | None, encoder: str | None, genes: str, mpp: Any, **given: Any) -> None:
    """Predict one slide into an .h5ad, no data root needed."""
    from stpath_assets.terminal import progress_bars

    with progress_bars() as listen:
        from stpath_assets.catalog.export import write_h5ad
        from stpath_assets.features import embed, embedder_of
        from stpath_assets.prediction import ModelChoice, predict_expression
        from stpath_assets.progress import listening
        from stpath_assets.settings import load_settings
        from stpath_assets.slides import open_slide, tokens
        from stpath_assets.tiles import tile

        settings = load_settings(home, genes=genes, encoder=encoder)
        organ, tech = tokens.organ(given["organ"]), tokens.tech(given["tech"])
        model = ModelChoice.for_encoder(settings.encoder, settings)
        panel = model.panel(settings.genes)
        model.load_vocabulary().select(panel)
        with listening(listen), open_slide(scan, None if mpp == "file" else mpp) as slide:
            for warning in slide.warnings:
                click.echo(f"note: {one_line(warning)}", err=True)
            tiles = tile(
                slide, min_tissue=settings.min_tissue, stride=settings.stride, quality=settings.quality_filter,
                on_unreadable=settings.unreadable,
            )  # fmt: skip
            features = embed(tiles, embedder_of(settings), settings.batch_size)
            write_h5ad(predict_expression(features, organ, tech, panel, model=model), Path(out))
    click.echo(f"{out}: {len(tiles)} tiles, {model.name}")


@main.command()
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json", "parquet"]), default="table")
@click.option("--at", help="Ask the tables as they were then: 2026-11-01, or '2026-11-01 12:00'.")
@click.option("--attach", is_flag=True, help="Print how to open the lake from DuckDB's shell, Python, R and DBeaver.")
@_common
def sql(query: str | None, home: str | None, form: str, at: str | None, attach: bool) -> None:
    """Ask the catalog in SQL, read-only; - reads the query from stdin. Views: slides, tile_grids, gigapath_features,
    stpath_predictions, spot_expression, evaluation_metrics, lineage, stale_slides, ...
    """
    from stpath_assets.catalog import attach_lines
    from stpath_assets.catalog import query as ask
    from stpath_assets.catalog.query import limits_of
    from stpath_assets.catalog.sandbox import capped
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store
    from stpath_assets.terminal import print_result

    settings = load_settings(home)
    if attach:
        click.echo(attach_lines(Store.of(settings)), nl=False)
        return
    if query is None:
        raise click.UsageError("give a query, or - to read it from stdin")
    statement = sys.stdin.read() if query == "-" else query
    with capped(limits_of(settings)), ask(settings, statement, at) as result:
        print_result(result, form)


@main.command()
@click.argument("slide_id")
@click.option("--to", "form", type=click.Choice(["h5ad", "trident"]), required=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False))
@_common
def export(slide_id: str, home: str | None, form: str, out: str) -> None:
    """Write a slide's stored prediction (h5ad), or its tiles and features (trident), in another tool's form."""
    from stpath_assets.catalog.export import write_h5ad, write_trident
    from stpath_assets.prediction import read_prediction
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    store = Store.of(load_settings(home))
    if form == "trident":
        write_trident(store, slide_id, Path(out))
    else:
        write_h5ad(read_prediction(store, slide_id), Path(out))
    click.echo(out)


@main.command()
@click.argument("slide_id")
@click.option("--reason")
@_common
def retire(slide_id: str, home: str | None, reason: str | None) -> None:
    """Take a slide out of the catalog and of later runs; nothing is deleted."""
    from stpath_assets.defs.materialize import sync_partitions
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    settings = load_settings(home)
    Registry(Store.of(settings)).retire(slide_id, reason)
    sync_partitions(settings)
    click.echo(f"{slide_id}: retired")


@main.command()
@click.option("--json", "as_json", is_flag=True)
@_common
def status(home: str | None, as_json: bool) -> None:
    """Show how each slide's stages stand: current, outdated and by what, failed and why, missing, or nothing to do."""
    from stpath_assets.settings import load_settings
    from stpath_assets.stages import Plan, states_of
    from stpath_assets.storage import Store
    from stpath_assets.terminal import status_table

    settings = load_settings(home)
    rows = [
        {"slide": row.slide_id, "status": row.status, **{name: str(state) for name, state in states.items()}}
        for row, states in states_of(Store.of(settings), Plan(settings))
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif rows:
        status_table(rows)
    else:
        click.echo(f"no slide is registered in {settings.home}; add one: stpath-assets add SLIDE")


@main.command()
@_common
def maintain(home: str | None) -> None:
    """Merge small parts, forget old states of the tables and remove files that nothing names."""
    from datetime import timedelta

    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store, maintenance
    from stpath_assets.terminal import progress_bars

    settings = load_settings(home)
    with progress_bars() as listen, listening(listen):
        done = maintenance.maintain(Store.of(settings), timedelta(days=settings.snapshot_days))
    click.echo(
        f"merged {done.merged} files into {done.into}, forgot {done.expired} states older than {settings.snapshot_days:g} days, "
        f"removed {done.removed} files ({done.removed_bytes / 1e6:.1f} MB)"
    )


@main.command()
@click.option("--gigapath", "compare", is_flag=True, help="Embed a tile and compare with its published embedding.")
@click.option("--tile", type=click.Path(path_type=Path), help="With --gigapath: the tile, prov_normal_000_1.png.")
@click.option(
    "--embedding", type=click.Path(path_type=Path), help="With --gigapath: its embedding, prov_normal_000_1.pt."
)
@click.option("--checksums/--no-checksums", default=True, help="Read every stored file and compare its SHA-256.")
@click.option("--json", "as_json", is_flag=True)
@_common
def doctor(
    home: str | None, compare: bool, tile: Path | None, embedding: Path | None, checksums: bool, as_json: bool
) -> None:
    """Check that everything is there and whole, and put dead runs in order; exit code 1 if something is wrong."""
    from stpath_assets.terminal import show_checks

    if compare != (tile is not None) or compare != (embedding is not None):
        raise click.UsageError("--gigapath, --tile and --embedding belong together")
    sys.exit(0 if show_checks(_checks(home, tile, embedding, checksums), as_json) else 1)


def _checks(home: str | None, tile: Path | None, embedding: Path | None, checksums: bool) -> Iterator[Any]:
    """All checks, one after the other as they are done."""
    from stpath_assets.defs.doctor import records
    from stpath_assets.doctor import Check, checks, compare_with_published
    from stpath_assets.settings import load_settings

    try:
        settings = load_settings(home)
    except StpathError as e:
        yield Check("settings", False, str(e))
        return
    yield Check("settings", True, str(settings.home))
    yield records(settings)
    yield from checks(settings, checksums)
    if tile is not None and embedding is not None:
        yield compare_with_published(settings, tile, embedding)


@main.command()
@_common
def demo(home: str | None) -> None:
    """Run the whole main job on phantom slides with simulated counts: no weights, no network."""
    from stpath_assets.demo import keep_settings, write_demo
    from stpath_assets.progress import listening
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store
    from stpath_assets.terminal import progress_bars, say_what_next

    settings = load_settings(home, encoder="demo", genes="all")
    keep_settings(settings.home)
    with progress_bars() as listen, listening(listen):
        slides = write_demo(settings.home / "inbox")
    registry = Registry(Store.of(settings))
    for slide in slides:
        registry.add(slide.slide, organ=slide.organ, tech=slide.tech, spots=slide.spots, slide_id=slide.slide_id)
    code = _run(settings, tuple(s.slide_id for s in slides))
    if code == 0:
        say_what_next(settings.home, [s.slide_id for s in slides if s.held_out and s.spots])
    sys.exit(code)


@main.group()
def gigapath() -> None:
    """The warm encoder on a Ray cluster: loaded once, used by the steps of many runs."""


@gigapath.command("serve")
@click.option("--encoder", default="gigapath", show_default=True, help="gigapath, demo or timm:MODEL.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option("--gpus", type=click.FloatRange(0), help="GPUs a replica; 0 is on CPU.  [default: 1 where there is one]")
@click.option("--cpus", type=click.FloatRange(0), default=1.0, show_default=True, help="CPUs a replica.")
@click.option(
    "--max-in-flight", type=click.IntRange(1), default=2, show_default=True, help="Batches a replica at once."
)
@click.option("--address", help="Ray cluster, host:port or auto.  [default: one is started]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens; 0.0.0.0 for other machines.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--detach", is_flag=True, help="Return when it is ready; it is served until the cluster ends.")
@_common
def serve_encoder(home: str | None, encoder: str, address: str | None, detach: bool, **given: Any) -> None:
    """Serve the encoder until Ctrl-C, to whoever has the token."""
    from stpath_assets.features import EncoderChoice
    from stpath_assets.features.serving import deploy
    from stpath_assets.features.serving.token import require_token
    from stpath_assets.settings import load_settings

    settings = load_settings(home)
    if detach and address is None:
        raise click.UsageError(
            "--detach needs a cluster that goes on: start one (ray start --head) and give --address auto"
        )
    token = require_token(settings)
    choice = EncoderChoice.of(encoder, settings)
    asked = deploy.Deployment(
        given["replicas"], deploy.gpus_of(choice, given["gpus"]), given["cpus"], given["max_in_flight"],
        given["host"], given["port"],
    )  # fmt: skip
    deploy.serve(choice, asked, token, address, click.echo)
    if not detach:
        deploy.wait_and_stop()


@gigapath.command("status")
@click.option("--url", help="The served encoder.  [default: STPATH_ENCODER_URL, else http://127.0.0.1:8000]")
@_common
def encoder_status(home: str | None, url: str | None) -> None:
    """Show what the replicas of the served encoder have done, as JSON."""
    from stpath_assets.features.serving.client import Server
    from stpath_assets.features.serving.token import read_token
    from stpath_assets.settings import load_settings

    settings = load_settings(home, encoder_url=url)
    server = Server(settings.encoder_url or "http://127.0.0.1:8000", read_token(settings))
    click.echo(json.dumps(server.counts(), indent=1))
