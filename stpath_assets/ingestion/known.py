"""What is known of a scan besides its file: the columns of a manifest, the keys of a sidecar."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from stpath_assets.errors import VocabularyError
from stpath_assets.ingestion.files import Exists, Location, below, exists
from stpath_assets.slides.source import is_url
from stpath_assets.storage import SLIDE_ID
from stpath_assets.vocabulary import tokens

NONE = "none"
"""A value that removes an earlier one; an empty cell keeps it."""

FROM_SPOTS = "spots"
"""A scale that is derived from the lattice of the spots."""

_PATHS = ("spots", "regions", "features")


def _text(value: Any) -> Any:
    """Return a number, as YAML and JSON give them, as text: patient 17 is patient "17"."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text), Field(max_length=1000)]


Micrometres = Annotated[float, Field(gt=0, lt=100)]


class Known(BaseModel):
    """What is known of one scan. Every field may be left out. Further columns are kept as text in `more`."""

    model_config = ConfigDict(extra="allow", frozen=True, str_strip_whitespace=True)

    slide_id: Text | None = None
    patient_id: Text | None = None
    cohort: Text | None = None
    organ: Text | None = None
    tech: Text | None = None
    mpp: Literal["file", "spots"] | Micrometres | tuple[Micrometres, Micrometres] | None = None
    spots: Text | None = None
    regions: Text | None = None
    features: Text | None = None
    genes: Text | None = None

    @property
    def more(self) -> dict[str, str]:
        """The further columns, as text. Empty values are left out."""
        return {name: str(value) for name, value in (self.model_extra or {}).items() if value not in (None, "")}

    @field_validator("slide_id")
    @classmethod
    def _valid_id(cls, value: str | None) -> str | None:
        if value is not None and not SLIDE_ID.fullmatch(value):
            raise ValueError("use letters, digits, '_', '.', '-', first a letter or digit, no '..'")
        return value

    @field_validator("mpp", mode="before")
    @classmethod
    def _two_scales(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) and "," in value else value

    @field_validator("organ")
    @classmethod
    def _known_organ(cls, value: str | None) -> str | None:
        return _token(value, tokens.organ)

    @field_validator("tech")
    @classmethod
    def _known_tech(cls, value: str | None) -> str | None:
        return _token(value, tokens.tech)

    def below(self, folder: Location, is_there: Exists = exists) -> "Known":
        """Return the same with paths that are relative to a folder made absolute. Raises `ValueError` for one that is missing."""
        paths = {
            name: _absolute(name, str(value), folder, is_there)
            for name in _PATHS
            if (value := getattr(self, name)) is not None
        }
        if self.genes is not None and Path(self.genes).suffix in (".txt", ".json"):
            paths["genes"] = _absolute("genes", self.genes, folder, is_there)
        return self.model_copy(update=paths)


@dataclass(frozen=True)
class Entry:
    """A scan, as an absolute path or URL, with what is known of it. `origin` names the file and row, for messages."""

    scan: str
    known: Known = field(default_factory=Known)
    origin: str = ""


def problem_of(error: ValidationError) -> str:
    """Return the first error of pydantic as `column: what is wrong, got value`."""
    first = error.errors()[0]
    name = next((str(part) for part in first["loc"] if part in Known.model_fields), str(first["loc"][0]))
    text = first["msg"].removeprefix("Value error, ")
    if name == "mpp":
        text = "give µm per pixel as a number greater than 0, X,Y if not square, `file` or `spots`"
    return f"{name}: {text}, got {str(first['input'])[:80]!r}"


def _token(value: str | None, look_up: Any) -> str | None:
    if value in (None, NONE):
        return value
    try:
        return str(look_up(value))
    except VocabularyError as e:
        raise ValueError(str(e)) from e


def _absolute(name: str, value: str, folder: Location, is_there: Exists) -> str:
    if value == NONE or is_url(value):
        return value
    path = below(folder, value)
    if not is_there(path):
        raise ValueError(f"{name}: {path} does not exist")
    return str(path)
