"""An inbox in an object store, by its real protocol: the same rules as for a folder of this machine."""

import json
from pathlib import Path

import boto3
import pytest

from stpath_assets.ingestion import (
    Arrival,
    Memory,
    choose_arrivals,
    done_of,
    find_scans,
    forget_gone,
    list_inbox,
    location,
    read_quarantine,
    register_arrivals,
)
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.conftest import tissue_image, write_tiff
from tests.roots import command as sa

pytestmark = pytest.mark.server


class Scans:
    """A folder `scans` of a bucket."""

    def __init__(self, bucket: str, drawn: Path) -> None:
        self.bucket, self.drawn = bucket, drawn
        self.url = f"s3://{bucket}/scans"
        self._client = boto3.client("s3")

    def put(self, name: str, content: bytes) -> str:
        self._client.put_object(Bucket=self.bucket, Key=f"scans/{name}", Body=content)
        return f"{self.url}/{name}"

    def draw(self, name: str, seed: int = 0) -> str:
        return self.put(name, write_tiff(self.drawn, tissue_image(400, 500, seed=seed)).read_bytes())

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=f"scans/{name}")

    def listed(self) -> dict[str, Arrival]:
        return {a.entry.scan.removeprefix(f"{self.url}/"): a for a in list_inbox([location(self.url)]).arrivals}


@pytest.fixture
def scans(bucket: str, tmp_path: Path) -> Scans:
    return Scans(bucket, tmp_path / "drawn.tif")


def test_scans_of_a_bucket_are_found_with_what_is_known_of_them(scans: Scans, tmp_path: Path) -> None:
    scans.draw("a.tif")
    scans.draw("ward 3/b c.tif", 1)
    scans.draw("ward 3/d.svs", 2)
    scans.draw(".parts/e.tif", 3)
    scans.put(
        "ward 3/manifest.csv", b"file,organ,patient_id,spots\nb c.tif,Breast,P1,\nnone.tif,Brain,P2,\nd.svs,,P3,x/y\n"
    )
    scans.put("a.tif.yaml", b"organ: Brain\n")
    scans.put("notes.txt", b"x")
    found = find_scans(location(f"{scans.url}/"))
    known = {e.scan.removeprefix(scans.url): (e.known.organ, e.known.patient_id) for e in found.entries}
    assert known == {"/a.tif": ("Brain", None), "/ward 3/b c.tif": ("Breast", "P1"), "/ward 3/d.svs": (None, None)}
    assert found.others == 1
    manifest = f"{scans.url}/ward 3/manifest.csv"
    assert found.problems == [
        f"{manifest}: row 3: file: {scans.url}/ward 3/none.tif does not exist",
        f"{manifest}: row 4: spots: {scans.url}/ward 3/x/y does not exist",
    ]


def test_a_digest_changes_with_the_object_or_its_sidecar_and_with_nothing_else(scans: Scans) -> None:
    scans.draw("a.tif")
    first = scans.listed()["a.tif"]
    assert first.seen.size_bytes > 0
    assert first.seen.modified_ns > 1.7e18
    assert scans.listed()["a.tif"].digest == first.digest
    scans.draw("b.tif", 1)
    assert scans.listed()["a.tif"].digest == first.digest
    scans.put("a.yaml", b"organ: Breast\n")
    known = scans.listed()["a.tif"]
    assert known.digest != first.digest
    scans.draw("a.tif", 2)  # often of the same size and second
    assert scans.listed()["a.tif"].digest != known.digest


def test_scans_of_a_bucket_are_registered_once_and_bad_ones_go_into_quarantine(
    scans: Scans, empty_store: Store
) -> None:
    scans.draw("good.tif")
    scans.put("broken.tif", b"not an image at all")
    scans.put("empty.tif", b"")
    scans.put("good.json", json.dumps({"organ": "Breast", "stain": "H&E"}).encode())

    def chosen() -> list[Arrival]:
        arrivals = list(scans.listed().values())
        done = done_of(empty_store, arrivals)
        _, memory = choose_arrivals(arrivals, done, Memory(), 99)
        return choose_arrivals(arrivals, done, memory, 99)[0]

    rows, refused = register_arrivals(empty_store, chosen())
    assert [(row.uri, row.organ) for row in rows] == [(f"{scans.url}/good.tif", "Breast")]
    assert [q.uri for q in refused] == [f"{scans.url}/broken.tif"]
    assert chosen() == []
    assert Registry(empty_store).get("good").trouble(at_urls=True) is None
    assert forget_gone(empty_store) == []
    scans.remove("broken.tif")
    scans.remove("good.tif")
    assert forget_gone(empty_store) == [f"{scans.url}/broken.tif"]
    assert read_quarantine(empty_store) == {}
    assert "no such file" in str(Registry(empty_store).get("good").trouble(at_urls=True))
    assert Registry(empty_store).get("good").trouble() is None, "no server is asked unless that is meant"


def test_a_scan_that_was_moved_in_a_bucket_stays_the_same_slide(scans: Scans, empty_store: Store) -> None:
    scans.draw("a.tif")
    register_arrivals(empty_store, list(scans.listed().values()))
    scans.draw("b.tif")
    _, (refused,) = register_arrivals(empty_store, [scans.listed()["b.tif"]])
    assert "has the same content as slide a" in refused.reason
    scans.remove("a.tif")
    (row,), _ = register_arrivals(empty_store, list(scans.listed().values()))
    assert (row.slide_id, row.uri) == ("a", f"{scans.url}/b.tif")


def test_a_scan_that_was_added_by_hand_is_left_to_its_user(scans: Scans, empty_store: Store) -> None:
    url = scans.draw("a.tif")
    assert sa("add", url, "--home", empty_store.home).exit_code == 0
    arrivals = list(scans.listed().values())
    assert list(done_of(empty_store, arrivals)) == [url]


def test_a_folder_of_a_bucket_is_added_by_hand_too(scans: Scans, empty_store: Store) -> None:
    scans.draw("a.tif")
    scans.draw("deep/b.tif", 1)
    done = sa("add", f"{scans.url}/", "--home", empty_store.home)
    assert done.exit_code == 0, done.output
    assert "2 registered, 0 failed, 0 with the content of another, 0 other files" in done.output


def test_spots_at_a_url_are_refused_in_one_line(scans: Scans, empty_store: Store) -> None:
    scans.draw("a.tif")
    spots = scans.put("a_counts.tsv.gz", b"x")
    scans.put("a.yaml", b"spots: a_counts.tsv.gz\n")
    _, (refused,) = register_arrivals(empty_store, list(scans.listed().values()))
    assert refused.reason == (
        f"a.tif: its measured expression {spots} is at a URL; copy it to this machine, and give --spots a path"
    )


def test_a_bucket_that_cannot_be_listed_is_named(scans: Scans, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = list_inbox([location("s3://no-such-bucket-here/scans")])
    assert inbox.arrivals == []
    assert [p.split(" (")[0] for p in inbox.problems] == ["s3://no-such-bucket-here/scans: cannot be listed"]
    assert list_inbox([location(f"s3://{scans.bucket}/other")]).problems == [], "a folder without objects is empty"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    location("s3://x").fs.clear_instance_cache()
    assert "check the URL and your credentials" in list_inbox([location(scans.url)]).problems[0]
