"""Registers found scans one by one. A scan that cannot be registered costs the others nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stpath_assets import spots
from stpath_assets.errors import SameContentError, ScaleError, StpathError, explain
from stpath_assets.ingestion.known import FROM_SPOTS, NONE, Entry, Known
from stpath_assets.ingestion.pseudonyms import Pseudonyms
from stpath_assets.slides import Registered, Registry, look_at, scale
from stpath_assets.slides.registered import slide_id_from_name
from stpath_assets.slides.source import Source


@dataclass(frozen=True)
class Added:
    """What became of an entry: its row, or one line that says why there is none. `is_twice`: its content is registered.
    `dropped` are columns that a pseudonym does not keep.
    """

    entry: Entry
    row: Registered | None = None
    error: str = ""
    is_twice: bool = False
    dropped: tuple[str, ...] = ()


def add_entries(
    registry: Registry,
    entries: Iterable[Entry],
    check: Callable[[Registered], object] = lambda _: None,
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[Added]:
    """Register scans with what is known of them, under `pseudonyms` if given. `check` is that of `Registry.add`.

    Spots that an entry names are read, so that what is wrong with them is known at once.
    """
    for entry in entries:

        def check_all(row: Registered, has_spots: bool = entry.known.spots not in (None, NONE)) -> None:
            check(row)
            if has_spots:
                spots.check_spots(row)

        try:
            dropped: tuple[str, ...] = ()
            if pseudonyms is not None:
                entry, dropped = pseudonyms.disguise(entry)
            row = registry.add(entry.scan, **arguments_of(entry.known), check=check_all)
            yield Added(entry, row, dropped=dropped)
        except SameContentError as e:
            yield Added(entry, error=str(e), is_twice=True)
        except StpathError as e:
            yield Added(entry, error=f"{entry.origin}: {e}" if entry.origin else str(e))
        except Exception as e:  # with one scan, which must not keep the others out
            yield Added(entry, error=f"{Source(entry.scan).name}: {explain(e)}")


def arguments_of(known: Known) -> dict[str, Any]:
    """Return what is known as arguments of `Registry.add`."""
    return {
        "slide_id": known.slide_id,
        "patient": known.patient_id,
        "cohort": known.cohort,
        "organ": known.organ,
        "tech": known.tech,
        **_scale_of(known),
        "spots": known.spots,
        "regions": known.regions,
        "features": known.features,
        "genes": known.genes,
        "more": known.more or None,
    }


def _scale_of(known: Known) -> dict[str, Any]:
    """Return the scale and where it comes from. Raises `ScaleError` or `SpotsError` if spots cannot give it."""
    if known.mpp != FROM_SPOTS:
        return {"mpp": known.mpp}
    if known.spots in (None, NONE):
        raise ScaleError(
            "mpp `spots` is the scale of the spots' lattice: give --spots, a Visium folder, or mpp as a number"
        )
    return {"mpp": spots.scale_of(Path(str(known.spots))), "mpp_source": FROM_SPOTS}


def preview(registered: Iterable[Registered], entries: Iterable[Entry]) -> Iterator[dict[str, str]]:
    """Yield what registering each entry would do, as columns of text. Opens the scans, and reads no more than their headers.

    An id that two different scans want is told apart only when they are registered, because that takes their content's hash.
    """
    by_uri = {row.uri: row for row in registered}
    for entry in entries:
        known, source = entry.known, Source(entry.scan)
        before = by_uri.get(source.uri)
        shown = {
            "slide": known.slide_id or (before.slide_id if before else slide_id_from_name(source.name)),
            "organ": known.organ or (before and before.organ) or "–",
            "tech": known.tech or (before and before.tech) or "–",
            "spots": Path(known.spots).name if known.spots else "–",
        }
        try:
            mpp = None if known.mpp == "file" else _scale_of(known)["mpp"]
            if known.mpp is None and before is not None:
                mpp = before.given_mpp
            found = look_at(source, mpp)
            mpp_xy = (found["mpp_x"], found["mpp_y"])
            shown |= {"px": f"{found['width_px']} x {found['height_px']}", "µm/px": scale.text(mpp_xy, "g")}
            what, error = "new" if before is None else "update" if before.status == "ready" else "brought back", ""
        except StpathError as e:
            shown |= {"px": "–", "µm/px": "–"}
            what, error = "refused", str(e)
        yield {**shown, "would be": what, "scan": entry.scan, "error": error}
