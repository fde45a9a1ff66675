"""Matches predicted with measured genes where the same gene has two names: versions of Ensembl ids, case, renamed symbols."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stpath_assets.vocabulary.genes import Vocabulary

ENSEMBL_ID = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?", re.I)

RENAMED = {
    "ATP5A1": "ATP5F1A", "ATP5B": "ATP5F1B", "ATP5C1": "ATP5F1C", "ATP5D": "ATP5F1D", "ATP5E": "ATP5F1E", "ATP5F1": "ATP5PB",
    "ATP5G1": "ATP5MC1", "ATP5G2": "ATP5MC2", "ATP5G3": "ATP5MC3", "ATP5H": "ATP5PD", "ATP5I": "ATP5ME", "ATP5J": "ATP5PF",
    "ATP5J2": "ATP5MF", "ATP5L": "ATP5MG", "ATP5O": "ATP5PO", "ATPIF1": "ATP5IF1", "CD97": "ADGRE5", "CTGF": "CCN2",
    "CYR61": "CCN1", "EMR1": "ADGRE1", "FAM129A": "NIBAN1", "FAM129B": "NIBAN2", "FYB": "FYB1", "GNB2L1": "RACK1",
    "GPR56": "ADGRG1", "H1F0": "H1-0", "H1FX": "H1-10", "H2AFJ": "H2AJ", "H2AFV": "H2AZ2", "H2AFX": "H2AX", "H2AFY": "MACROH2A1",
    "H2AFZ": "H2AZ1", "H3F3A": "H3-3A", "H3F3B": "H3-3B", "HIST1H1C": "H1-2", "HIST1H1E": "H1-4", "HIST1H4C": "H4C3",
    "KIAA0101": "PCLAF", "LINC00152": "CYTOR", "MKL1": "MRTFA", "MKL2": "MRTFB", "MLLT4": "AFDN", "NGFRAP1": "BEX3",
    "PVRL1": "NECTIN1", "PVRL2": "NECTIN2", "PVRL3": "NECTIN3", "PVRL4": "NECTIN4", "SELK": "SELENOK", "SELM": "SELENOM",
    "SELT": "SELENOT", "SEP15": "SELENOF", "SEPP1": "SELENOP", "SEPW1": "SELENOW", "SEPT2": "SEPTIN2", "SEPT6": "SEPTIN6",
    "SEPT7": "SEPTIN7", "SEPT9": "SEPTIN9", "SEPT11": "SEPTIN11", "TCEB1": "ELOC", "TCEB2": "ELOB", "TMEM173": "STING1",
    "WISP1": "CCN4", "WISP2": "CCN5",
}  # fmt: skip
"""Earlier symbols of genes that spatial panels often have, and the present ones of HGNC."""

_NAMED_AGAIN = {new: old for old, new in RENAMED.items()}


@dataclass(frozen=True)
class Match:
    """A predicted gene, the name that it was measured under, and how they were found to be one: `same`, `id version`, `case`,
    `renamed`, `vocabulary`; or None and `not measured`.
    """

    gene: str
    measured: str | None
    how: str


def match_genes(
    predicted: Sequence[str], measured: Iterable[str], vocabulary: Callable[[], Vocabulary] | None = None
) -> list[Match]:
    """Match predicted genes with measured ones. A measured name is taken once, by the first way that finds it.

    Where a way finds two measured names for a gene, or a name is that of two genes, it takes none: no gene is guessed.
    `vocabulary` is called only if measured genes are named by Ensembl id; it knows their symbols.
    """
    left = dict.fromkeys(measured)
    found: dict[str, Match] = {}

    def take(how: str, key: Callable[[str], object | None]) -> None:
        wanted = [gene for gene in predicted if gene not in found]
        keys = Counter(key(gene) for gene in wanted)
        theirs: dict[object, list[str]] = {}
        for name in left:
            theirs.setdefault(key(name), []).append(name)
        for gene in wanted:
            k = key(gene)
            if k is not None and keys[k] == 1 and len(theirs.get(k, [])) == 1:
                found[gene] = Match(gene, theirs[k][0], how)
        for match in found.values():
            left.pop(str(match.measured), None)

    take("same", lambda name: name)
    take("id version", lambda name: name.upper().partition(".")[0] if ENSEMBL_ID.fullmatch(name) else None)
    take("case", str.casefold)
    take("renamed", lambda name: _present(name.upper()))
    if vocabulary is not None and len(found) < len(predicted) and any(ENSEMBL_ID.fullmatch(name) for name in left):
        take("vocabulary", vocabulary().find)
    return [found.get(gene, Match(gene, None, "not measured")) for gene in predicted]


def _present(symbol: str) -> str | None:
    """Return the present symbol of a gene that was renamed, or None for any other."""
    return RENAMED.get(symbol) or (symbol if symbol in _NAMED_AGAIN else None)
