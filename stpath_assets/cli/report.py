"""`report`: one HTML file of the cohort, or of a slide."""

from pathlib import Path

import click

from stpath_assets.cli.completion import slides
from stpath_assets.cli.options import answer, begin, common, json_option


@click.command()
@click.argument("slide_id", required=False, shell_complete=slides)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The .html to write.  [default: report.html, or SLIDE_ID.html]"
)
@click.option("--pages", type=click.Path(path_type=Path), help="A folder beside it, for a page a slide.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@json_option
@common
def report(
    slide_id: str | None, home: str | None, out: Path | None, pages: Path | None, force: bool, as_json: bool
) -> None:
    """Write a report as one HTML file that can be mailed.

    Of the cohort: slides, quality, spots, scores with baselines and intervals, provenance, licences. With SLIDE_ID, of that
    slide.

    \b
    stpath-assets report --out report.html
    stpath-assets report --out report.html --pages slides
    stpath-assets report S1 --out S1.html
    """
    from stpath_assets.cli.terminal import progress_bars
    from stpath_assets.exports import destination
    from stpath_assets.progress import listening, track
    from stpath_assets.report import write_cohort, write_slide
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    settings, path = load_settings(home), out or Path(f"{slide_id or 'report'}.html")
    if pages is not None and (slide_id is not None or pages.absolute().parent != path.absolute().parent):
        raise click.UsageError("--pages is a folder beside the report of the cohort")
    destination.check(path, (".html",), "a report", force)
    if pages is not None:
        destination.check(pages, (), "a folder of pages", force)
    begin("asking the catalog")
    rows = Registry(Store.of(settings)).choose([] if slide_id is None else [slide_id])
    if slide_id is not None:
        write_slide(settings, slide_id, path)
    else:
        write_cohort(settings, path, pages)
    if pages is not None:
        with progress_bars() as listen, listening(listen), destination.atomic_folder(pages) as draft:
            draft.mkdir()
            for row in track(rows, "pages", len(rows)):
                write_slide(settings, row.slide_id, draft / f"{row.slide_id}.html")
    told = {"path": str(path), "pages": None if pages is None else str(pages)}
    answer(as_json, told, str(path), *([] if pages is None else [f"{pages}: {len(rows)} pages"]))
