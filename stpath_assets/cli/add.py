"""`add`: registers scans."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stpath_assets.cli.options import begin, common, complain, json_option, mpp_option, note

if TYPE_CHECKING:
    from stpath_assets.ingestion import Entry, Pseudonyms
    from stpath_assets.ingestion.adding import Added
    from stpath_assets.slides import Registered

_OF_ONE = ("slide_id", "spots", "regions", "features")


@click.command()
@click.argument("scans", metavar="[SLIDE|FOLDER]...", nargs=-1, type=click.Path())
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="CSV with a row per scan: file, organ, tech, spots, …."
)
@click.option("--organ", help="Organ, by STPath's names (Breast, Brain, ...); or none.")
@click.option("--tech", help="Technology: Visium, ST, Xenium or Visium HD; or none.")
@mpp_option(from_file=True)
@click.option(
    "--spots", type=click.Path(), help="Measured expression: *_counts.tsv.gz, .h5ad or a Visium folder; or none."
)
@click.option(
    "--regions", type=click.Path(), help="GeoJSON of regions that replace or restrict the tissue mask; or none."
)
@click.option("--features", type=click.Path(), help="Imported GigaPath features, TRIDENT's .h5; or none.")
@click.option("--patient", "patient_id", help="Patient of the section.")
@click.option("--cohort", help="Cohort that the slide belongs to.")
@click.option("--id", "slide_id", help="A slide_id of your own.")
@click.option(
    "--pseudonymize", is_flag=True, help="Give ids that tell nothing, and keep the key apart from the data root."
)
@click.option("--dry-run", is_flag=True, help="Show what would be registered, and register nothing.")
@json_option
@common
def add(
    scans: tuple[str, ...],
    home: str | None,
    manifest: Path | None,
    pseudonymize: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Register scans. They are read in place, never moved.

    In a FOLDER, all scans are found, with what its manifest.csv and sidecars say of them. The URL of a folder ends with a slash.

    \b
    stpath-assets add S1.svs --organ Breast --tech Visium --spots visium/outs
    stpath-assets add /scans/2026-11 --organ Lung --dry-run
    stpath-assets add --manifest slides.csv
    """
    from stpath_assets.ingestion import Pseudonyms, preview
    from stpath_assets.settings import load_settings
    from stpath_assets.slides import Registry
    from stpath_assets.storage import Store

    if not scans and manifest is None:
        raise click.UsageError("give a SLIDE, a FOLDER or --manifest FILE")
    several = len(scans) > 1 or manifest is not None or any(map(_is_folder, scans))
    if several and any(given[name] for name in _OF_ONE):
        raise click.UsageError("--id, --spots, --regions and --features belong to one slide: add it by itself")
    settings = load_settings(home)
    entries, others, problems = _collect(scans, manifest, given)
    for problem in problems:
        complain(problem)
    registry = Registry(Store.of(settings))
    begin(f"reading {len(entries)} scan{'s' * (len(entries) != 1)}")
    if dry_run:
        from stpath_assets.cli.terminal import preview_table

        found = list(preview(registry.all() if registry.store.is_there() else [], entries))
        if as_json:
            click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            preview_table(found)
        sys.exit(1 if problems else 0)
    told = list[dict[str, Any]]()
    pseudonyms = Pseudonyms(settings.pseudonym_folder, settings.home) if pseudonymize else None
    added, twice = _register(registry, entries, told if as_json else None, pseudonyms)
    if pseudonyms is not None and added:
        note(f"{pseudonyms.folder / 'key.csv'} says which scan is which; keep that folder apart, and back it up")
    if added:
        from stpath_assets.defs.materialize import sync_partitions

        sync_partitions(settings)
    if as_json:
        click.echo(json.dumps([*told, *({"error": problem} for problem in problems)], indent=1, ensure_ascii=False))
    elif several:
        failed = len(entries) - added - twice + len(problems)
        click.echo(f"{added} registered, {failed} failed, {twice} with the content of another, {others} other files")
    elif twice:
        sys.exit(1)
    sys.exit(0 if added + twice == len(entries) and not problems else 1)


def _is_folder(scan: str) -> bool:
    return scan.endswith("/") if "://" in scan else Path(scan).is_dir()


def _collect(
    scans: tuple[str, ...], manifest: Path | None, given: dict[str, Any]
) -> tuple[list["Entry"], int, list[str]]:
    """Return the entries of all arguments, the number of files that are no scans, and what cannot be used."""
    from stpath_assets.ingestion import Entry, Known, find_scans, location, read_manifest

    entries, others, problems = list[Entry](), 0, list[str]()
    for scan in scans:
        if _is_folder(scan):
            found = find_scans(location(scan))
            entries, others, problems = entries + found.entries, others + found.others, problems + found.problems
            if not found.entries and not found.problems:
                problems.append(f"{scan}: is a folder without scans ({found.others} other files); check the path")
        else:
            entries.append(Entry(scan))
    if manifest is not None:
        read = read_manifest(manifest)
        entries, problems = entries + read.entries, problems + read.problems
    # Options say what a manifest or sidecar does not.
    options = {name: value for name, value in given.items() if value is not None}
    said = (entry.known.model_dump(exclude_none=True) for entry in entries)
    return (
        [
            Entry(e.scan, Known.model_construct(**{**options, **of}), e.origin)
            for e, of in zip(entries, said, strict=True)
        ],
        others,
        problems,
    )


def _register(
    registry: Any, entries: list["Entry"], told: list[dict[str, Any]] | None, pseudonyms: "Pseudonyms | None"
) -> tuple[int, int]:
    """Register scans and print a line for each, or append what JSON tells of it to `told`. Returns how many were, and how many
    have the content of another.
    """
    from stpath_assets.features import trident
    from stpath_assets.ingestion import add_entries

    added, twice, notes = 0, 0, list[str]()
    for outcome in add_entries(registry, entries, lambda row: notes.extend(trident.check(row)), pseudonyms):
        if outcome.dropped:
            note(f"{', '.join(outcome.dropped)}: not kept, since it may name a person")
        if outcome.row is None:
            complain(outcome.error)
            twice += outcome.is_twice
            if told is not None:
                told.append({"scan": outcome.entry.scan, "error": outcome.error})
        else:
            added += 1
            changed = _changed(outcome)
            for warning in (*outcome.row.warnings, *notes, *changed):
                note(warning)
            if told is None:
                click.echo(_line(outcome.row))
            else:
                names = ("slide_id", "uri", "width_px", "height_px", "mpp", "mpp_source", "organ", "tech")
                facts = {name: getattr(outcome.row, name) for name in names}
                told.append({**facts, "notes": [*outcome.row.warnings, *notes, *changed]})
        notes.clear()
    return added, twice


def _changed(outcome: "Added") -> list[str]:
    """Return a note if a slide's id is not the name of its file."""
    from stpath_assets.slides import name_without_suffix, slide_id_from_name

    row = outcome.row
    stem = name_without_suffix(Path(outcome.entry.scan).name)
    if row is None or outcome.entry.known.slide_id is not None or row.slide_id == stem:
        return []
    taken = row.slide_id != slide_id_from_name(Path(outcome.entry.scan).name)
    why = "that id belongs to another scan" if taken else "an id has plain letters, digits and _ . -"
    return [f"{Path(outcome.entry.scan).name} is registered as {row.slide_id}: {why}; --id gives another"]


def _line(row: "Registered") -> str:
    from stpath_assets.slides import scale

    return (
        f"{row.slide_id}: {row.width_px} x {row.height_px} px, {scale.text(row.mpp_xy, 'g')} µm/px ({row.mpp_source}), "
        f"{row.organ or 'organ not given'}, {row.tech or 'technology not given'}"
    )
