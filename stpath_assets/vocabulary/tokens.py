"""The organs and technologies that STPath knows, and their accepted spellings.

Ids are positions in the published model's embedding tables (STPath, Huang et al., npj Digital Medicine 2025). An unknown name
is an error; upstream silently uses padding instead.
"""

import re
from difflib import get_close_matches

from stpath_assets.errors import VocabularyError

PAD = "<pad>"

TECHS = (PAD, "Spatial Transcriptomics", "Visium", "Xenium", "Visium HD")

ORGANS = (
    PAD, "<mask>", "<unk>", "Spinal cord", "Brain", "Breast", "Bowel", "Skin", "Heart", "Kidney", "Prostate", "Lung", "Liver",
    "Uterus", "Bone", "Muscle", "Eye", "Pancreas", "Mouth", "Ovary", "Glioma", "Glioblastoma", "Stomach", "Colon", "Others",
)  # fmt: skip

_TECH_ALIASES = {"ST": "Spatial Transcriptomics"}

# Names that were trained under the token `Others` in the published model.
_OTHERS = (
    "Bladder", "Lymphoid", "Cervix", "Lymph node", "Embryo", "Placenta", "Thymus", "Joint", "Endometrium", "Lacrimal gland",
    "Large intestine", "Colorectal", "Whole organism", "Cerebellum", "Lung/Brain", "Kidney/Brain",
)  # fmt: skip


def _key(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", name).casefold()


_TECH_NAMES = {_key(n): n for n in TECHS[1:]} | {_key(a): n for a, n in _TECH_ALIASES.items()}
_ORGAN_NAMES = {_key(n): n for n in ORGANS[3:]} | {_key(n): "Others" for n in _OTHERS}


def organ(name: str | None) -> str | None:
    """Return the model's name of an organ. None stays None, the padding token (the same effect as upstream).

    Raises `VocabularyError` with the known names.
    """
    return _lookup(name, _ORGAN_NAMES, "organ", [*ORGANS[3:], *_OTHERS])


def tech(name: str | None) -> str | None:
    """Return the model's name of a technology. None stays None, the padding token.

    Raises `VocabularyError` with the known names.
    """
    return _lookup(name, _TECH_NAMES, "technology", TECHS[1:])


def organ_id(name: str | None) -> int:
    """Return the row of an organ in the model's embedding table; None is padding."""
    return ORGANS.index(organ(name) or PAD)


def tech_id(name: str | None) -> int:
    """Return the row of a technology in the model's embedding table; None is padding."""
    return TECHS.index(tech(name) or PAD)


def _lookup(name: str | None, names: dict[str, str], what: str, known: tuple[str, ...] | list[str]) -> str | None:
    if name is None:
        return None
    found = names.get(_key(name))
    if found is None:
        close = get_close_matches(_key(name), names, n=1, cutoff=0.6)
        hint = f"did you mean {names[close[0]]}? " if close else ""
        raise VocabularyError(f"STPath has no {what} token {name!r}; {hint}known: {', '.join(known)}")
    return found
