"""The hub's own client against a server that stands in for the hub: each cause has its one line and its steps.

The client reads its settings when it is imported, so that it runs in new processes here; the server does not leave this machine.
"""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import huggingface_hub
import pytest

from stpath_assets.errors import WeightsError
from stpath_assets.weights import hub

TOKEN = "hf_of_the_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b"weights"
ERRORS = {
    "gated": (403, "GatedRepo"),
    "anonymous": (401, "GatedRepo"),
    "gone": (404, "RepoNotFound"),
    "revision": (404, "RevisionNotFound"),
    "entry": (404, "EntryNotFound"),
    "forbidden": (403, None),
    "down": (500, None),
}

# The client tries a hub that is down again and again, half a minute in all: it is not to wait in between here.
CLIENT = """
import json, sys, time
time.sleep = lambda _: None
from stpath_assets.weights import hub
from stpath_assets.errors import WeightsError
said = {}
for name in sys.argv[1:]:
    try:
        file = hub.HubFile(f"test/{name}", "model.bin", "0123456789abcdef0123456789abcdef01234567", "STPATH_SOME", name != "gone")
        said[name] = str(hub.fetch(file))
    except WeightsError as e:
        said[name] = str(e)
print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for; a repository's name says what becomes of it."""

    tokens: ClassVar[list[str | None]] = []

    def answer(self) -> None:
        name = self.path.split("/")[2]
        if not self.path.startswith("/api/"):  # the client asks more than for the file
            self.tokens.append(self.headers.get("Authorization"))
        status, code = ERRORS.get(name, (200, None))
        if name == "expired":
            status = 401
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if name == "expired":
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        body = CONTENT if status == 200 else b""
        if status == 200 and name != "other":
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(body) + (name == "broken")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET = answer

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


Ask = Callable[..., dict[str, str]]


@pytest.fixture
def ask(endpoint: str, tmp_path: Path) -> Ask:
    """Fetches from repositories of those names in a new process: what came of each, and nothing else on the terminal."""

    def fetch(*names: str, **environment: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), **environment}
        ran = subprocess.run(
            [sys.executable, "-c", CLIENT, *names], env={**clean, **given}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout.splitlines()[-1])
        assert all("\n" not in line for line in said.values())
        return dict(said)

    return fetch


def test_a_file_is_fetched_with_the_token_into_the_cache(ask: Ask, tmp_path: Path) -> None:
    Hub.tokens.clear()
    path = Path(ask("whole", HF_TOKEN=TOKEN)["whole"])
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "hf")
    assert set(Hub.tokens) == {f"Bearer {TOKEN}"}
    asked = len(Hub.tokens)
    assert ask("whole", HF_HUB_OFFLINE="1") == {"whole": str(path)}, "from the cache, nothing asked"
    assert len(Hub.tokens) == asked


SAYS = {
    "gated": ["the account of your token has no access", "ask for access", "HF_TOKEN"],
    "expired": ["refuses the token (401)", "hf auth login", "HF_TOKEN"],
    "gone": ["no such repository", "still exists"],
    "revision": ["no such revision", "newer version"],
    "entry": ["has no file model.bin"],
    "forbidden": ["refuses access (403)", "HF_TOKEN"],
    "down": ["answers with an error (500)", "try again"],
    "other": ["no Hugging Face hub", "HF_ENDPOINT"],
    "broken": ["the download broke off", "run it again"],
}


def test_every_refusal_says_what_to_do(ask: Ask) -> None:
    said = ask(*SAYS, HF_TOKEN=TOKEN)
    for name, words in SAYS.items():
        for word in (f"test/{name} at {COMMIT[:12]}", "model.bin", "STPATH_SOME", *words):
            assert word in said[name], said[name]
    assert len(set(said.values())) == len(SAYS)


def test_without_a_token(ask: Ask) -> None:
    said = ask("anonymous")["anonymous"]
    assert "gated and no valid token was sent; ask for access" in said
    assert "hf auth login" in said


def test_without_a_network(ask: Ask) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nothing listens
        said = ask("whole", HF_ENDPOINT=f"http://127.0.0.1:{unused.getsockname()[1]}")["whole"]
    assert "the hub cannot be reached (no network?)" in said
    assert "STPATH_SOME" in said


def test_offline_nothing_is_asked(ask: Ask) -> None:
    Hub.tokens.clear()
    said = ask("whole", HF_HUB_OFFLINE="1")["whole"]
    assert "not in the local cache, and HF_HUB_OFFLINE is set" in said
    assert Hub.tokens == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    """No disk can be filled here without harm: the client's error is made."""

    def download(*_: str, **__: str) -> str:
        full = OSError(errno.ENOSPC, "No space left on device")
        if wrapped:
            raise RuntimeError("writer failed") from full
        raise full

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match=r"disk of the hub's cache is full .* HF_HOME"):
        hub.fetch(hub.HubFile("test/full", "model.bin", COMMIT, "STPATH_SOME"))


def test_a_cache_that_cannot_be_written(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = ask("whole", HF_HOME=str(tmp_path / "file"))["whole"]
    assert "STPATH_SOME" in said
    assert "file" in said
