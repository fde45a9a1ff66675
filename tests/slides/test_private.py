"""Nothing that a scan says of a patient leaves it: all bytes of the data root and all output of a run are looked at.

The scans drawn here carry a name, dates and free text in every tag and side file that has a place for them, and label
and macro images of a colour that nothing else has.
"""

import gzip
import io
import json
import re
import sqlite3
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from stpath_assets.errors import SlideError
from stpath_assets.slides import open_slide
from stpath_assets.slides.formats.base import VENDORS, vendor_of
from tests.conftest import tissue_image
from tests.slides.drawn import PATIENT, bif, mirax, ndpi, philips, qptiff, scn
from tests.slides.drawn_dicom import dicom

LABEL = (3, 200, 77)
WORDS = (
    "Thessaly",
    "Quimby",
    "04/03/61",
    "1961:03",
    "1961-03",
    "19610304",
    "dr-who",
    "MRN-4711",
    "suspected carcinoma",
)


def aperio(path: Path) -> Path:
    """An Aperio scan with label and macro images, and a patient in its description and tags."""
    said = (
        "Aperio Image Library v11\n1280x1024|AppMag = 20|MPP = 0.5|Patient = Thessaly Quimby|Date = 04/03/61|User = dr-who|"
        "Title = suspected carcinoma|Filename = MRN-4711|Barcode = MRN-4711"
    )
    texts = {306: "1961:03:04 00:00:00", 315: PATIENT, 271: "MRN-4711", 33432: PATIENT}
    tags = [(code, "s", 0, text, True) for code, text in texts.items()]
    tags += [(code, kind, len(PATIENT), PATIENT.encode(), True) for code, kind in ((700, 1), (34675, 7))]  # XMP, ICC
    label = np.full((300, 200, 3), LABEL, np.uint8)
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None}
        tif.write(tissue_image(1024, 1280), tile=(256, 256), description=said, extratags=tags, **options)
        tif.write(tissue_image(256, 320), rowsperstrip=16, description=said, **options)
        for kind in ("label", "macro"):
            tif.write(
                label, rowsperstrip=300, description=f"Aperio Image Library v11\n{kind} 200x300|{PATIENT}", **options
            )
    return path


COMMANDS = """
import json, sys
from stpath_assets.cli import main
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as e:
        if e.code:
            raise
"""


def sa(*commands: list[str | Path], home: Path) -> str:
    """All that commands print, the libraries below Python as well: run one after the other in a process of their own."""
    program = [sys.executable, "-c", COMMANDS, json.dumps([[*c, "--home", home] for c in commands], default=str)]
    ran = subprocess.run(program, capture_output=True, timeout=280)
    assert ran.returncode == 0, ran.stderr.decode()
    return (ran.stdout + ran.stderr).decode()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("private")
    image = tissue_image(1024, 1536)
    return [
        aperio(folder / "s1.svs"),
        mirax(folder, image),
        bif(folder, image),
        scn(folder, image),
        dicom(folder, image),
        *(draw(folder, image) for draw in (ndpi, philips, qptiff)),
    ]


@pytest.fixture(scope="module")
def ran(scans: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data root after the whole main job on these scans, and everything that was printed."""
    home = tmp_path_factory.mktemp("run") / "home"
    return home, sa(
        ["add", *scans, "--organ", "Breast", "--tech", "Visium"],
        ["run", "s1", "m", "--encoder", "demo", "--genes", "EPCAM"],
        ["sql", "select * from slides", "--format", "json"],
        ["status", "--json"],
        home=home,
    )


def test_the_scans_do_name_a_patient(scans: list[Path]) -> None:
    """What is looked for is there to be found."""
    for scan in scans:
        sides = scan.with_suffix("").glob("*") if scan.suffix == ".mrxs" else ()
        content = b"".join(p.read_bytes() for p in (scan, *sides))
        assert b"Quimby" in content, scan.name
        assert any(w.encode() in content for w in WORDS[2:]) or scan.suffix == ".mrxs"


def unpacked(content: bytes) -> list[bytes]:
    """A file's bytes, and what it holds compressed: Parquet's columns, SQLite's and DuckDB's texts, PNG, gzip."""
    found = [content]
    if content.startswith(b"PAR1"):
        table = pq.read_table(io.BytesIO(content))
        metadata = b" ".join(k + b" " + v for k, v in (table.schema.metadata or {}).items())
        found += [
            metadata,
            *(
                str(c.to_pylist()).encode()
                for n, c in zip(table.column_names, table.columns, strict=True)
                if n != "feature"
            ),
        ]
    elif content.startswith(b"\x89PNG"):
        found.append(str(Image.open(io.BytesIO(content)).info).encode())
    elif content.startswith(b"\x1f\x8b"):
        found.append(gzip.decompress(content))
    return found


def stored_texts(path: Path) -> list[bytes]:
    """Every text of an SQLite database, Dagster's compressed events included."""
    if not path.read_bytes().startswith(b"SQLite"):
        return []
    found = []
    with sqlite3.connect(path) as db:
        db.text_factory = bytes
        for (name,) in db.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in db.execute(f'select * from "{name.decode()}"'):
                for value in row:
                    if isinstance(value, bytes):
                        found.append(value)
                        with suppress(zlib.error):  # a text that begins as compressed data does
                            found.append(zlib.decompress(value))
    return found


def test_nothing_of_a_patient_is_stored(ran: tuple[Path, str]) -> None:
    home, _ = ran
    files = [p for p in home.rglob("*") if p.is_file()]
    kinds = {p.suffix for p in files}
    assert {".parquet", ".png", ".sqlite", ".db"} <= kinds
    for path in files:
        for content in (*unpacked(path.read_bytes()), *stored_texts(path)):
            assert not [w for w in WORDS if re.search(rb"(?<![A-Za-z])" + w.encode(), content)], path


def test_nothing_of_a_patient_is_printed(ran: tuple[Path, str]) -> None:
    _, output = ran
    assert "s1" in output
    assert not [w for w in WORDS if w in output]


def test_no_picture_shows_a_label(ran: tuple[Path, str], scans: list[Path]) -> None:
    home, _ = ran
    pictures = list((home / "figures").rglob("*.png"))
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            off = np.abs(np.asarray(picture.convert("RGB")).astype(int) - LABEL).max(2)
        assert not (off < 30).any(), path
    with open_slide(scans[0]) as slide:
        for level, (width, height) in enumerate(slide.level_dimensions):
            off = np.abs(slide.read_level(level, 0, 0, width, height).astype(int) - LABEL).max(2)
            assert not (off < 30).any()


def test_what_is_kept_of_a_file_is_on_a_short_list(scans: list[Path]) -> None:
    for scan in scans:
        with open_slide(scan) as slide:
            assert slide.vendor in VENDORS
            said = f"{slide!r}"
            assert not [w for w in WORDS if re.search(rf"(?<![A-Za-z]){w}", said.replace(str(scan.parent), ""))]


@pytest.mark.parametrize("text", [None, "", PATIENT, "aperio; Thessaly Quimby", "Generic-TIFF"])
def test_other_words_are_no_vendor(text: str | None) -> None:
    assert vendor_of(text) is None


@pytest.mark.parametrize("text", ["aperio", "Hamamatsu", "philips_tiff", "philips-tiff", "PHILIPS"])
def test_vendors_are_known_by_any_spelling(text: str) -> None:
    assert vendor_of(text) in VENDORS


@pytest.mark.parametrize(
    ("draw", "part", "old", "new"),
    [
        (scn, "l.scn", b'sizeX="2304000"', b'sizeX="Quimby "'),
        (bif, "b.bif", b'Pos-X="0"', b'Pos-X="Quimby"'),
        (mirax, "m/Slidedat.ini", b"[HIERARCHICAL]", b"Thessaly Quimby"),
        (mirax, "m/Slidedat.ini", b"IMAGENUMBER_X=6", b"IMAGENUMBER_X=Quimby"),
    ],
)
def test_an_error_does_not_quote_the_file(
    tmp_path: Path, draw: Callable[..., Path], part: str, old: bytes, new: bytes
) -> None:
    """Errors are printed and stored, with the errors that they came from."""
    path = draw(tmp_path, tissue_image(1024, 1536))
    content = (tmp_path / part).read_bytes()
    assert old in content
    (tmp_path / part).write_bytes(content.replace(old, new))
    with pytest.raises(SlideError, match=rf"^{path.name}: ") as raised:
        open_slide(path, 0.5)
    said = "".join(traceback.format_exception(raised.value, chain=True))
    shown = "\n".join(line for line in said.splitlines() if not line.startswith("  "))
    assert "Quimby" not in shown
