"""Gene symbols and their columns in an STPath checkpoint.

The published vocabulary maps symbols to Ensembl ids; several symbols may share an id. The column of a gene is 2 + the rank of its
id among the sorted unique ids. Column 0 is padding, column 1 the mask token.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import VocabularyError, WeightsError, describe
from stpath_assets.storage.fingerprint import sha256_of_file

MASK_COLUMN = 1
FIRST_GENE_COLUMN = 2

Unknown = Literal["error", "skip"]


@dataclass(frozen=True)
class Vocabulary:
    """Symbols and their columns. `symbols[i]` names column i + 2, `ids[i]` is its Ensembl id; if an id has several symbols, it is
    the first in the file.
    """

    columns: dict[str, int]
    symbols: list[str]
    sha256: str
    ids: list[str] = field(repr=False)
    _by_id: dict[str, str] = field(repr=False)
    _folded: dict[str, str] = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a `symbol2ensembl.json`. Raises `WeightsError` if it is not one."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise WeightsError(f"{path}: no such vocabulary file; check STPATH_VOCABULARY")
        try:
            mapping = json.loads(path.read_text())
        except (ValueError, OSError, RecursionError) as e:
            raise WeightsError(f"{path}: is not JSON ({describe(e)}); fetch symbol2ensembl.json again") from e
        if not (isinstance(mapping, dict) and mapping and all(isinstance(v, str) for v in mapping.values())):
            raise WeightsError(
                f"{path}: must be one JSON object of gene symbol to Ensembl id; fetch symbol2ensembl.json again"
            )
        return cls.of(mapping, sha256_of_file(path))

    @classmethod
    def of(cls, mapping: dict[str, str], sha256: str = "none") -> "Vocabulary":
        """Return the vocabulary of a mapping from symbol to Ensembl id."""
        ids = sorted(set(mapping.values()))
        rank = {id_: FIRST_GENE_COLUMN + i for i, id_ in enumerate(ids)}
        columns = {symbol: rank[id_] for symbol, id_ in mapping.items()}
        first: dict[str, str] = {}
        folded: dict[str, str] = {}
        for symbol, id_ in mapping.items():
            first.setdefault(id_, symbol)
            # Two symbols that differ only in case and mean different genes are found only by exact spelling.
            known = folded.setdefault(symbol.casefold(), symbol)
            if columns[known] != columns[symbol]:
                folded[symbol.casefold()] = ""
        by_id: dict[str, str] = {}
        for id_ in ids:
            # The same for two versions of an id.
            bare = id_.partition(".")[0]
            by_id[bare] = "" if bare in by_id else first[id_]
        return cls(columns, [first[i] for i in ids], sha256, ids, by_id | {i: first[i] for i in ids}, folded)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def width(self) -> int:
        """The number of gene columns of a matching checkpoint: the genes, padding and mask."""
        return len(self.symbols) + FIRST_GENE_COLUMN

    def find(self, gene: str) -> int | None:
        """Return the column of a gene by symbol or Ensembl id, or None.

        Case, and the version of an id, matter only where they tell two genes apart.
        """
        if gene in self.columns:
            return self.columns[gene]
        text = gene.strip()
        id_ = text.upper()
        symbol = self._folded.get(text.casefold()) or self._by_id.get(id_) or self._by_id.get(id_.partition(".")[0])
        return self.columns[symbol] if symbol else None

    def id_of(self, gene: str) -> str | None:
        """Return the Ensembl id of a gene as `find` finds it, or None."""
        column = self.find(gene)
        return None if column is None else self.ids[column - FIRST_GENE_COLUMN]

    def select(
        self, genes: Sequence[str] | None, unknown: Unknown = "error"
    ) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the genes as they were spelt, and their columns. None is every gene, by column.

        Unknown genes raise one `VocabularyError` with all of them and close matches, or are left out with `skip`. A gene
        given twice is an error, because results are identified by its name.
        """
        if genes is None:
            return list(self.symbols), np.arange(FIRST_GENE_COLUMN, self.width)
        if isinstance(genes, str):
            raise VocabularyError(f"genes must be a list of symbols, not the text {genes!r}")
        found = [(str(g), self.find(str(g))) for g in genes]
        if not found:
            raise VocabularyError("no gene asked for; give at least one, or None for all")
        twice = [g for g, times in Counter(g for g, _ in found).items() if times > 1]
        if twice:
            raise VocabularyError(f"genes given twice: {', '.join(twice)}")
        missing = [g for g, column in found if column is None]
        if missing and unknown == "error":
            raise VocabularyError(self._complaint(missing))
        kept = [(g, column) for g, column in found if column is not None]
        if not kept:
            raise VocabularyError(f"none of the genes asked for is known to these weights ({len(missing)} unknown)")
        return [g for g, _ in kept], np.array([column for _, column in kept], np.int64)

    def _complaint(self, missing: list[str]) -> str:
        parts = []
        for gene in missing[:10]:
            close = get_close_matches(gene.upper(), self.columns, n=3, cutoff=0.6)
            parts.append(f"{gene} (close: {', '.join(close)})" if close else gene)
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        return f"genes that these weights do not know: {'; '.join(parts)}{more}; they know {len(self)}: correct or leave them out"
