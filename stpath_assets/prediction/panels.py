"""Panels: the genes to predict, as given on the command line and in the settings.

`vocabulary` checks whether the weights know a gene. Reading measured expression is in `spots`.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stpath_assets.errors import SettingsError, describe
from stpath_assets.settings import split_genes

if TYPE_CHECKING:
    import scipy

    from stpath_assets.spots import Spots
    from stpath_assets.vocabulary.genes import Vocabulary

_TOP = re.compile(r"top(\d+):(.+)", re.IGNORECASE)
_LISTS = (".txt", ".json")

MIN_SHARE = 0.1
"""Share of a sample's spots in which a gene must be counted to be a candidate for the most variable genes."""


def read_panel(text: str, vocabulary: "Callable[[], Vocabulary]") -> list[str] | None:
    """Return the genes of a panel; None means every gene that the weights know.

    - `all`
    - `EPCAM,ERBB2`: symbols or Ensembl ids, comma-separated
    - a path ending in .txt (genes separated by lines, spaces or commas; `#` begins a comment) or .json (a list of genes, or
      HEST's `{"genes": […]}`)
    - `top50:PATH`, or another number: the first 50 genes of a .txt or .json, or the 50 most variable genes of measured expression
      in any format of `spots.read_spots`; see `most_variable`

    `vocabulary` is called only if genes must be chosen. Raises `SettingsError` for a panel that is empty, unreadable, or smaller
    than asked for, `SpotsError` for measured expression that cannot be read.
    """
    text = text.strip()
    if text.casefold() == "all":
        return None
    if top := _TOP.fullmatch(text):
        return _top(int(top[1]), Path(top[2].strip()).expanduser(), vocabulary)
    if text.casefold().endswith(_LISTS):
        return _listed(Path(text).expanduser())
    return split_genes(text)


def absolute(text: str) -> str:
    """Return the panel with an absolute path, so that it means the same in another folder."""
    text = text.strip()
    if top := _TOP.fullmatch(text):
        return f"top{top[1]}:{Path(top[2].strip()).expanduser().absolute()}"
    if text.casefold().endswith(_LISTS):
        return str(Path(text).expanduser().absolute())
    return text


def most_variable(spots: "Spots", k: int, vocabulary: "Vocabulary") -> list[str]:
    """Return the k genes with the largest variance of log1p counts over a sample's spots, largest first, ties by symbol.

    Candidates are genes that the weights know, and that are counted in at least 10 % of the spots, as for HEST's panels (Jaume et
    al., NeurIPS 2024), one per column. HEST ranks them by scanpy's normalised dispersion. Here it is the variance itself, which
    needs no binning of means. Raises `SettingsError` if fewer than k are left.
    """
    columns: set[int] = set()
    chosen: list[str] = []
    for gene in ranked(spots.counts, spots.genes):
        column = vocabulary.find(gene)
        if column is not None and column not in columns:
            columns.add(column)
            chosen.append(gene)
        if len(chosen) == k:
            return chosen
    raise SettingsError(
        f"only {len(chosen)} genes are counted in 10 % of the spots and known to the weights, not {k}; ask for fewer"
    )


def ranked(counts: "scipy.sparse.csc_matrix", genes: Sequence[str]) -> Iterator[str]:
    """Yield the genes that are counted in at least 10 % of the spots, by the variance of log1p counts (N, G), largest first, ties
    by symbol.
    """
    logs = counts.astype(np.float64)
    logs.data = np.log1p(logs.data)
    mean = np.asarray(logs.mean(axis=0)).ravel()
    variance = np.asarray(logs.multiply(logs).mean(axis=0)).ravel() - mean**2
    counted = np.diff(logs.indptr) >= MIN_SHARE * counts.shape[0]
    # Rounded, so that the order of summation does not break ties.
    for i in np.lexsort((np.array(genes), -variance.round(12))):
        if counted[i]:
            yield genes[i]


def _top(k: int, path: Path, vocabulary: "Callable[[], Vocabulary]") -> list[str]:
    if k < 1:
        raise SettingsError(f"top{k}: asks for no gene; give a number from 1")
    if path.name.casefold().endswith(_LISTS):
        genes = _listed(path)
        if len(genes) < k:
            raise SettingsError(f"{path}: has {len(genes)} genes, not {k}; ask for fewer")
        return genes[:k]
    from stpath_assets.spots import read_spots

    spots = read_spots(path)
    try:
        return most_variable(spots, k, vocabulary())
    except SettingsError as e:
        raise SettingsError(f"{path}: {e}") from e


def _listed(path: Path) -> list[str]:
    """Return the genes of a .txt or .json file, in its order, without duplicates."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{path}: cannot be read as a list of genes ({reason}); check the path") from e
    if path.suffix.casefold() == ".json":
        genes = _from_json(path, text)
    else:
        genes = [g for line in text.splitlines() for g in re.split(r"[\s,]+", line.partition("#")[0]) if g]
    if not genes:
        raise SettingsError(f"{path}: names no gene; put one on each line")
    return list(dict.fromkeys(genes))


def _from_json(path: Path, text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"{path}: is not JSON ({describe(e)}); correct it") from e
    genes = value.get("genes") if isinstance(value, dict) else value
    if not isinstance(genes, list) or not all(isinstance(g, str) for g in genes):
        raise SettingsError(f'{path}: must be a list of gene symbols or {{"genes": [...]}}; correct it')
    return [g.strip() for g in genes if g.strip()]
