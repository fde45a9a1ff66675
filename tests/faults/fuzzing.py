"""A structured fuzzer of files that come from outside: each damaged file opens rightly or is refused in one line.

Damage knows the format: it changes counts, types, offsets, links and texts of a valid file rather than only its bytes. A case is
named by kind and number, and drawn again from these.
"""

import gzip
import json
import os
import random
import shutil
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stpath_assets.errors import StpathError

Damage = Callable[[random.Random, bytes], bytes]
SECONDS, MEMORY_GB = 30, 2
"""What a reader may take for one file."""

SCANS = ("tiff", "pyramid", "svs", "ome", "bigtiff", "ndpi", "philips", "scn", "dicom", "png", "jpeg")
OTHERS = (
    "manifest", "sidecar", "settings", "geojson", "gmt", "vocabulary", "panel", "counts", "selection", "h5ad", "visium",
    "positions", "trident", "checkpoint", "old checkpoint", "safetensors",
)  # fmt: skip


# ---- damage


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Some bits of some bytes changed, most of them near the start, where headers are."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        at = min(int(rng.expovariate(1 / 400)), len(out) - 1) if rng.random() < 0.6 else rng.randrange(len(out))
        out[at] ^= 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(256)
    return bytes(out)


def cut(rng: random.Random, data: bytes) -> bytes:
    """Cut off, or with a hole of zeros, or with a part twice."""
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return rng.choice((data[:a], data[:a] + bytes(b - a) + data[b:], data[:b] + data[a:], data[a:]))


_NUMBERS = (0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


def tags_changed(rng: random.Random, data: bytes) -> bytes:
    """Entries of a TIFF's directories changed: code, type, count, value, the next directory's place."""
    out, entries = bytearray(data), list(_entries(data))
    if not entries:
        return flipped(rng, data)
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, following = rng.choice(entries)
        number = rng.choice((*_NUMBERS, rng.randrange(len(data)), rng.choice(entries)[0]))
        what = rng.random()
        with_size = ("Q", 8, 12) if big else ("I", 4, 8)
        if following:
            struct.pack_into(f"{order}{with_size[0]}", out, at, number & (2 ** (8 * with_size[1]) - 1))
        elif what < 0.15:
            struct.pack_into(
                f"{order}H", out, at, rng.choice((256, 257, 258, 259, 262, 277, 322, 324, 325, 330, 347, 65420))
            )
        elif what < 0.3:
            struct.pack_into(f"{order}H", out, at + 2, rng.choice((0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 18, 99)))
        elif what < 0.55:
            struct.pack_into(f"{order}{with_size[0]}", out, at + 4, number & (2 ** (8 * with_size[1]) - 1))
        else:
            here = struct.unpack_from(f"{order}I", out, at + with_size[2])[0]
            value = rng.choice((number, here // 2, here * 2, here + 1, max(here, 1) - 1)) & 0xFFFFFFFF
            struct.pack_into(f"{order}I", out, at + with_size[2], value)
    return bytes(out)


def _entries(data: bytes) -> Iterator[tuple[int, bool]]:
    """The places of a TIFF's entries, and of the links to its next directories, marked True."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    link, size = ("Q", 20) if big else ("I", 12)
    at, seen = struct.unpack_from(f"{order}{link}", data, 8 if big else 4)[0], set()
    while at and at not in seen and at + 8 < len(data):
        seen.add(at)
        count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
        first = at + (8 if big else 2)
        for i in range(min(count, 200)):
            if first + (i + 1) * size > len(data):
                return
            yield first + i * size, False
        end = first + count * size
        if end + 8 > len(data):
            return
        yield end, True
        at = struct.unpack_from(f"{order}{link}", data, end)[0]


_WORDS = (
    b"9" * 5000, b"-1", b"1e999", b"nan", b"inf", b"null", b"", b"\0", b"\xff\xfe", b'"', b"'", b"[" * 20000, b"{" * 20000,
    b"&a [*a]", b"!!python/object/apply:os.system [id]", b"\x1b]0;x\x07", b"../../../etc/passwd", b"'; drop table slides; --",
    b"<script>alert(1)</script>", b"\xe2\x80\xae", b"A" * 70000, b"\n", b"\r", b"\t", b",", b";", b"5", b"true", b"[]", b"{}",
)  # fmt: skip


def words_changed(rng: random.Random, data: bytes) -> bytes:
    """Tokens of a text replaced by nasty ones, or lines dropped, doubled or joined."""
    out = data
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [i for i, c in enumerate(out[:200_000]) if c in b" ,;\t\n:[]{}\"='"]
        if not places:
            return out + rng.choice(_WORDS)
        a = rng.choice(places)
        b = next((p for p in places if p > a), len(out))
        out = out[: a + 1] + rng.choice(_WORDS) + out[b:] if rng.random() < 0.8 else out[:a] + out[b:]
    return out


# ---- files


@dataclass
class Kind:
    """A kind of file: a valid one, the file of it that is damaged, what damages it, and who reads it. `right` says what a file
    that opens must be like.
    """

    name: str
    file: Path
    damages: tuple[Damage, ...]
    read: Callable[[Path], Any]
    path: Path | None = None
    right: Callable[[Any], bool] = lambda _: True
    is_zipped: bool = False


def scan_kinds(folder: Path) -> list[Kind]:
    """The kinds of `SCANS`."""
    import tifffile
    from PIL import Image

    from tests.conftest import tissue_image, write_tiff
    from tests.slides import drawn, drawn_dicom
    from tests.slides.test_private import aperio

    folder.mkdir(parents=True, exist_ok=True)
    image = tissue_image(600, 800)
    made: dict[str, Path] = {
        "tiff": write_tiff(folder / "tiff.tif", image, compression="deflate"),
        "pyramid": write_tiff(folder / "pyramid.tif", image, levels=2, compression="jpeg"),
        "svs": aperio(folder / "a.svs"),
        "bigtiff": folder / "big.tif",
        "ome": folder / "a.ome.tif",
        "png": folder / "a.png",
        "jpeg": folder / "a.jpg",
    }
    tifffile.imwrite(made["bigtiff"], image, bigtiff=True, photometric="rgb", rowsperstrip=64)
    tifffile.imwrite(
        made["ome"], image, ome=True, photometric="rgb", tile=(256, 256),
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )  # fmt: skip
    for name in ("png", "jpeg"):
        Image.fromarray(image).save(made[name])
    for name in ("ndpi", "philips", "scn"):
        (folder / name).mkdir(exist_ok=True)
        made[name] = getattr(drawn, name)(folder / name, tissue_image(1024, 1536))
    (folder / "dicom").mkdir(exist_ok=True)
    made["dicom"] = drawn_dicom.dicom(folder / "dicom", tissue_image(512, 512))
    kinds = []
    for name in SCANS:
        whole, is_tiff = _look(made[name]), name not in ("dicom", "png", "jpeg")
        damages = (tags_changed, tags_changed, tags_changed, flipped, cut) if is_tiff else (flipped, flipped, cut)
        kinds.append(Kind(name, made[name], damages, _look, right=_same_size(whole)))
    return kinds


def _same_size(whole: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """A size that differs by less than a block of 256 px has the same blocks, so that no reader can tell."""
    return lambda found: all(abs(found[side] - whole[side]) < 256 for side in ("width_px", "height_px"))


def _look(path: Path) -> dict[str, Any]:
    """Opens a scan as `add` does, and reads it as tiling does: both in the child."""
    from stpath_assets.confined import confined
    from stpath_assets.errors import SlideError
    from stpath_assets.slides import look_at
    from stpath_assets.slides.source import Source

    facts = look_at(Source(path), 0.5)
    confined(read_pixels, str(path), name=path.name, error=SlideError)
    return facts


def read_pixels(path: str) -> None:
    """Reads a whole scan, leaving out what cannot be decoded. Runs in the child."""
    from stpath_assets.slides import open_slide

    with open_slide(path, 0.5) as slide:
        slide.thumbnail(256, partly=True)


def other_kinds(folder: Path) -> list[Kind]:
    """The kinds of `OTHERS`."""
    import anndata
    import pandas as pd
    import torch
    from safetensors.torch import save_file

    from stpath_assets.features import trident
    from stpath_assets.imports.gene_sets import _read as read_gene_sets
    from stpath_assets.ingestion.manifest import read_manifest, read_sidecar
    from stpath_assets.prediction.panels import read_panel
    from stpath_assets.settings import load_settings
    from stpath_assets.spots import read_spots
    from stpath_assets.tiles.regions import read_regions
    from stpath_assets.vocabulary.genes import Vocabulary
    from stpath_assets.weights import read_state_dict
    from tests.roots import write_spots
    from tests.spots.arrays import place, places_of, write_array

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "manifest.csv": "file,slide_id,patient_id,organ,tech,mpp,note\na.svs,A,P1,Breast,Visium,0.5,x\nb.svs,B,P2,Lung,,,\n",
        "a.svs.yaml": "organ: Breast\ntech: Visium\nmpp: 0.5\npatient_id: P1\nnote: x\n",
        "settings.toml": 'encoder = "demo"\ngenes = "EPCAM,VIM"\nmin_tissue = 0.3\nweights = "w.pth"\nsql_rows = 100\n',
        "panel.json": '["EPCAM", "VIM", "CD74"]',
        "sets.gmt": "one\thttps://x\tEPCAM\tVIM\ntwo\t\tCD74\tACTA2\n",
        "symbol2ensembl.json": json.dumps({f"G{i}": f"ENSG{i:011d}" for i in range(20)}),
        "a.geojson": json.dumps({
            "type": "FeatureCollection",
            "features": [{
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 90], [0, 0]]]},
                "properties": {"classification": {"name": "Tissue"}},
            }] * 3,
        }),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name in ("a.svs", "b.svs"):
        (folder / name).touch()
    counts = write_spots(folder, "s")
    data = anndata.AnnData(
        np.arange(12, dtype=np.float32).reshape(4, 3), pd.DataFrame(index=list("abcd")), pd.DataFrame(index=["G1", "G2", "G3"]),
        obsm={"spatial": np.arange(8.0).reshape(4, 2)},
    )  # fmt: skip
    data.write_h5ad(folder / "a.h5ad")
    places = places_of(6, 6)
    outs = write_array(folder / "visium", places, place(places, 0.5))
    state = {f"w{i}": torch.arange(6.0).reshape(2, 3) for i in range(4)}
    torch.save(state, folder / "w.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "w.safetensors")
    row, file = _trident_file(folder)
    binary, text = (flipped, flipped, cut), (words_changed, words_changed, words_changed, flipped, cut)

    def settings(path: Path) -> Any:
        home = path.parent / "root"
        home.mkdir(exist_ok=True)
        shutil.copy(path, home / "settings.toml")
        return load_settings(home)

    def of_sample(path: Path) -> Any:
        return read_spots(path.parent / "s_counts.tsv")

    return [
        Kind("manifest", folder / "manifest.csv", text, read_manifest),
        Kind("sidecar", folder / "a.svs.yaml", text, read_sidecar),
        Kind("settings", folder / "settings.toml", text, settings),
        Kind("geojson", folder / "a.geojson", text, read_regions),
        Kind("gmt", folder / "sets.gmt", text, read_gene_sets),
        Kind("vocabulary", folder / "symbol2ensembl.json", text, Vocabulary.load),
        Kind(
            "panel", folder / "panel.json", text, lambda p: read_panel(str(p), lambda: Vocabulary.of({"EPCAM": "E1"}))
        ),
        Kind("counts", counts, text, read_spots),
        Kind("selection", folder / "s_selection.tsv", text, of_sample),
        Kind("h5ad", folder / "a.h5ad", binary, read_spots),
        Kind("visium", outs / "filtered_feature_bc_matrix.h5", binary, lambda p: read_spots(p.parent), outs),
        Kind(
            "positions",
            next((outs / "spatial").glob("tissue_positions*")),
            text,
            lambda p: read_spots(p.parent.parent),
            outs,
        ),
        Kind("trident", file, binary, lambda p: trident.read(p, row)),
        Kind("checkpoint", folder / "w.pth", (*binary, _zip_changed), read_state_dict),
        Kind("old checkpoint", folder / "old.pth", binary, read_state_dict),
        Kind("safetensors", folder / "w.safetensors", (*text, *binary), read_state_dict),
    ]


def _zip_changed(rng: random.Random, data: bytes) -> bytes:
    """Bytes of the pickle in a zipped checkpoint changed, with the checksum that fits them."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, flipped(rng, content) if entry.filename.endswith("data.pkl") else content)
    return out.getvalue()


def _trident_file(folder: Path) -> tuple[Any, Path]:
    from datetime import UTC, datetime

    import h5py

    from stpath_assets.slides import Registered

    row = Registered(
        slide_id="a", uri="a.svs", sha256="0" * 64, size_bytes=1, width_px=4000, height_px=4000, mpp=0.5, mpp_source="file",
        mpp_file=0.5, vendor=None, levels=1, organ=None, tech=None, spots_uri=None, warnings=(), status="ready", reason=None,
        registered_at=datetime.now(UTC),
    )  # fmt: skip
    path = folder / "a.h5"
    with h5py.File(path, "w") as f:
        coords = f.create_dataset("coords", data=np.array([[0, 0], [224, 0], [448, 224]]))
        coords.attrs.update({"patch_size_level0": 224, "patch_size": 224})
        features = f.create_dataset("features", data=np.ones((3, 1536), np.float32))
        features.attrs["encoder"] = "gigapath"
    return row, path


# ---- trying


@dataclass
class Found:
    """What a series of damaged files came to."""

    cases: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    refused: int = 0
    contained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        by = ", ".join(f"{k} {v}" for k, v in self.cases.items())
        return (
            f"fuzzed {self.cases.total()} ({by}): {self.opened} opened, {self.refused} refused in one line, of these "
            f"{len(self.contained)} because their reader crashed, hung or took too much memory in the child; "
            f"slowest {self.slowest_s:.1f} s; crashed, hung, ended in a traceback or opened with a wrong geometry: "
            f"{len(self.wrong)} wrong"
        )


_CONTAINED = ("its reader crashed", "took longer than", "GB of memory to open", "says too much")


def damaged(kind: Kind, number: int) -> tuple[str, bytes]:
    """Returns the name of the damage and the damaged file's content."""
    rng = random.Random(f"{kind.name} {number}")
    data, damage = kind.file.read_bytes(), rng.choice(kind.damages)
    if kind.file.suffix == ".gz":
        return damage.__name__, gzip.compress(damage(rng, gzip.decompress(data)))
    return damage.__name__, damage(rng, data)


def attempt(kind: Kind, number: int, found: Found) -> None:
    """Reads a damaged file in place of the valid one, and records what came of it."""
    name, content = damaged(kind, number)
    valid, case = kind.file.read_bytes(), f"{kind.name} {number} ({name})"
    kind.file.write_bytes(content)
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = kind.read(kind.file)
        if kind.right(result):
            found.opened += 1
        else:
            found.wrong.append(f"{case}: opened as {result}")
    except StpathError as e:
        said = str(e)
        if "\n" in said or any(not c.isprintable() for c in said):
            found.wrong.append(f"{case}: not one line: {said[:300]!r}")
        else:
            found.refused += 1
            if any(c in said for c in _CONTAINED):
                found.contained.append(f"{case}: {said[:200]}")
    except Exception as e:
        frame = traceback.extract_tb(e.__traceback__)[-1]
        found.wrong.append(f"{case}: {repr(e)[:200]} at {Path(frame.filename).name}:{frame.lineno}")
    finally:
        kind.file.write_bytes(valid)
    took = time.monotonic() - began
    found.slowest_s = max(found.slowest_s, took)
    if took > SECONDS + 5:
        found.wrong.append(f"{case}: took {took:.0f} s")
    found.cases[kind.name] += 1


def fuzz(kinds: list[Kind], times: int, first: int = 0) -> Found:
    """Tries `times` damaged files, in turn of each kind."""
    found = Found()
    for i in range(times):
        attempt(kinds[i % len(kinds)], first + i // len(kinds), found)
    return found


def main(of: str, times: int, seed: int, folder: Path) -> None:
    """Prints what went wrong or was contained, and on the last line what all came to."""
    os.environ |= {"STPATH_OPEN_SECONDS": str(SECONDS), "STPATH_OPEN_MEMORY_GB": str(MEMORY_GB)}
    found = fuzz({"scans": scan_kinds, "others": other_kinds}[of](folder), times, seed * 1_000_000)
    for said in (*(f"WRONG {w}" for w in found.wrong), *(f"contained {c}" for c in found.contained)):
        print(said)
    print(found)


if __name__ == "__main__":
    # By its own name, which children find it under.
    from tests.faults.fuzzing import main as fuzz_by_name

    fuzz_by_name(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
