"""Public data sets: fetches their files and says what is known of the scan.

    entry = public.fetch(public.DATA_SETS["visium-breast-1"], folder)

The files are those of the publisher, unchanged.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from stpath_assets.errors import DownloadError, describe
from stpath_assets.ingestion.download import download
from stpath_assets.ingestion.known import FROM_SPOTS, Entry, Known


@dataclass(frozen=True)
class DataSet:
    """A section of a public data set: a scan, and the output of Space Ranger for it.

    `url` is the folder of its files at the publisher, `stem` the start of their names. `sha256` has checksums of files by the
    end of their names, where they are known.
    """

    title: str
    url: str
    stem: str
    organ: str
    licence: str
    source: str
    sha256: dict[str, str]


_TENX = "https://cf.10xgenomics.com/samples/spatial-exp/1.1.0"
_LICENCE = "Creative Commons Attribution 4.0 (CC BY 4.0)"

IMAGE, MATRIX, SPATIAL = "image.tif", "filtered_feature_bc_matrix.h5", "spatial.tar.gz"


def _breast(section: int) -> DataSet:
    stem = f"V1_Breast_Cancer_Block_A_Section_{section}"
    title = f"Human breast cancer, block A, section {section}"
    return DataSet(title, f"{_TENX}/{stem}", stem, "Breast", _LICENCE, "10x Genomics", {})


DATA_SETS = {"visium-breast-1": _breast(1), "visium-breast-2": _breast(2)}


def fetch(name: str, folder: Path, mirror: str | None = None) -> tuple[Entry, dict[str, str]]:
    """Fetch the files of a data set into a folder. Returns the scan, and the SHA-256 of each file by its path.

    `mirror` is a URL in place of the publisher's folder. A file that is there is not fetched again. Raises `DownloadError`.
    """
    wanted, outs = DATA_SETS[name], folder / "outs"
    # The matrix has in `outs` the name that Space Ranger gives it.
    paths = {IMAGE: folder / f"{name}.tif", MATRIX: outs / MATRIX, SPATIAL: folder / SPATIAL}
    hashes = {
        str(path): download(f"{mirror or wanted.url}/{wanted.stem}_{end}", path, wanted.sha256.get(end))
        for end, path in paths.items()
    }
    try:
        with tarfile.open(paths[SPATIAL]) as archive:
            archive.extractall(outs, filter="data")
    except (tarfile.TarError, OSError, EOFError) as e:
        raise DownloadError(f"{paths[SPATIAL]}: cannot be unpacked ({describe(e)}); delete it and type it again") from e
    more = {"title": wanted.title, "source": wanted.source, "licence": wanted.licence}
    known = {"slide_id": name, "organ": wanted.organ, "tech": "Visium", "mpp": FROM_SPOTS, "spots": str(outs), **more}
    return Entry(str(paths[IMAGE]), Known.model_validate(known), name), hashes
