"""Reads manifests (a row per scan) and sidecars (a file per scan).

    file,slide_id,patient_id,organ,tech,spots,stain
    A1.svs,A1,P17,Breast,Visium,A1/outs,H&E

The only required column is `file`. Paths are relative to the manifest's folder. A sidecar lies beside its scan as `A1.svs.yaml`
or `A1.yaml` (or `.yml`, `.json`) and has the same keys, without `file`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from stpath_assets.errors import ManifestError, describe, one_line
from stpath_assets.ingestion.files import Exists, Location, below, exists
from stpath_assets.ingestion.known import Entry, Known, problem_of
from stpath_assets.slides.source import is_url

MANIFEST = "manifest.csv"
"""The manifest that is looked for in a folder."""

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Manifest:
    """The entries of a manifest, and one line for each row that cannot be used."""

    entries: list[Entry]
    problems: list[str]


def read_manifest(path: Location, is_there: Exists = exists) -> Manifest:
    """Read a manifest, CSV with a header; `;` and tabs are understood too.

    Raises `ManifestError` if the file as a whole cannot be used. A wrong row is a problem that names file, row and column.
    """
    text = _read(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if "file" not in header:
            raise ManifestError(f"{path}: has no column `file`; its first row is {', '.join(header[:8]) or 'empty'}")
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise ManifestError(f"{path}: has two columns {twice!r}; remove one")
        return _entries(path, header, rows, is_there)
    except csv.Error as e:
        raise ManifestError(f"{path}: row {rows.line_num}: is not CSV ({e}); correct it") from e


def read_sidecar(path: Location, is_there: Exists = exists) -> Known:
    """Return what a sidecar says of its scan. Raises `ManifestError` with file and key."""
    text = _read(path)
    try:
        said = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise ManifestError(f"{path}: cannot be read ({one_line(str(e))[:200]}); correct it") from e
    if said is None:
        return Known()
    if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
        raise ManifestError(f"{path}: must hold names and values, such as `organ: Breast`")
    try:
        return Known(**said).below(path.parent, is_there)
    except ValidationError as e:
        raise ManifestError(f"{path}: {problem_of(e)}") from e
    except ValueError as e:
        raise ManifestError(f"{path}: {e}") from e


def sidecars_of(scan: Location) -> Iterator[Location]:
    """Yield the paths where a scan's sidecar may lie, the first that exists holds."""
    for stem in (scan.name, scan.stem):
        for suffix in _SUFFIXES:
            yield scan.with_name(stem + suffix)


def _entries(path: Location, header: list[str], rows: Iterator[list[str]], is_there: Exists) -> Manifest:
    entries, problems = list[Entry](), list[str]()
    seen: dict[tuple[str, str], str] = {}
    for number, cells in enumerate(rows, 2):
        origin = f"{path}: row {number}"
        if not any(cell.strip() for cell in cells):
            continue
        try:
            entry = _entry(path.parent, header, cells, origin, is_there)
            for column, value in (("file", entry.scan), ("slide_id", entry.known.slide_id)):
                if value is not None and (before := seen.setdefault((column, value), origin)) != origin:
                    raise ValueError(f"{column}: {value} stands in {before.rpartition(': ')[2]} as well")
        except ValidationError as e:
            problems.append(f"{origin}: {problem_of(e)}")
        except ValueError as e:
            problems.append(f"{origin}: {e}")
        else:
            entries.append(entry)
    return Manifest(entries, problems)


def _entry(folder: Location, header: list[str], cells: list[str], origin: str, is_there: Exists) -> Entry:
    if len(cells) > len(header):
        raise ValueError(
            f"has {len(cells)} values for {len(header)} columns; put values that hold the separator in quotes"
        )
    row: dict[str, Any] = {
        name: value.strip() for name, value in zip(header, cells, strict=False) if name and value.strip()
    }
    file = row.pop("file", None)
    if file is None:
        raise ValueError("file: is empty")
    scan = file
    if not is_url(file):
        path = below(folder, file)
        scan = str(path.absolute())
        if not is_there(path):
            raise ValueError(f"file: {scan} does not exist")
    return Entry(scan, Known(**row).below(folder, is_there), origin)


def _read(path: Location) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ManifestError(f"{path}: is larger than {_MAX_BYTES >> 20} MB, so it is no manifest")
        return path.read_bytes().decode("utf-8-sig")  # as it is: `read_text` would change line ends in values
    except UnicodeDecodeError as e:
        raise ManifestError(f"{path}: is not UTF-8 text; save it as CSV in UTF-8") from e
    except ManifestError:
        raise
    except Exception as e:  # each file system of a URL has its own errors
        said = e.strerror if isinstance(e, OSError) and e.strerror else describe(e)
        raise ManifestError(f"{path}: cannot be read ({said}); check the path") from e
