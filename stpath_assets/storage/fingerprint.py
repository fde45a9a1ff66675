"""What a stored part was made from, and its digest: the only definition of "up to date".

A stage's facts hold everything that can change its result, including the facts of earlier stages. Paths, times and counts never
belong here.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from stpath_assets.errors import StorageError
from stpath_assets.tables import SCHEMA_VERSION


@dataclass(frozen=True)
class Fingerprint:
    """The facts that a part was made from, as JSON values, and their SHA-256."""

    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the facts in canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the facts as canonical JSON: sorted keys and no spaces, so that equal facts give equal text."""
        return "{" + ",".join(text for _, text in sorted(self._texts.items())) + "}"

    @cached_property
    def _texts(self) -> dict[str, str]:
        """Each fact's piece of that JSON. Extensions reuse them, so that a panel is serialized once."""
        return _texts_of(self.facts)

    def extends(self, earlier: "Fingerprint") -> bool:
        """Return whether this fingerprint contains all facts of `earlier`."""
        return earlier.facts.items() <= self.facts.items()

    def extend(self, stage: str, code_version: str, /, **facts: Any) -> "Fingerprint":
        """Return the fingerprint of the next stage: these facts, its own, and the version of its code."""
        twice = sorted(set(facts) & set(self.facts))
        if twice:
            raise ValueError(f"duplicate facts of {stage}: {', '.join(twice)}")
        own = {**facts, f"{stage}_code": code_version}
        extended = Fingerprint({**self.facts, **own})
        extended.__dict__["_texts"] = {**self._texts, **_texts_of(own)}
        return extended


def _texts_of(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{encode_basestring(name)}:{_text(value)}" for name, value in facts.items()}


def _text(value: Any) -> str:
    # The same as the encoder below, in a tenth of the time: there are dozens of facts per slide.
    if type(value) is str:
        return encode_basestring(value)
    if type(value) is float and math.isfinite(value):
        return repr(value)
    return _JSON.encode(value)


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def start(**facts: Any) -> Fingerprint:
    """Return the fingerprint of the first stage, with the version of the stored schema."""
    return Fingerprint({**facts, "schema": SCHEMA_VERSION})


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal.

    Raises `StorageError` with the path if the file cannot be read.
    """
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise StorageError(f"{path}: cannot be read ({e.strerror or e}); check the path and its permissions") from e
