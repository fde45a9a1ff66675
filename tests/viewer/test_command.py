"""`view` as a process: it says where it is, serves that, and ends quietly."""

import json
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.roots import command, start


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_quietly(finished: Path, how: signal.Signals) -> None:
    process = start("view", "a", "--home", finished / "home", "--port", "0", "--no-browser", "--json")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline() + process.stdout.readline() + process.stdout.readline())["url"]
    assert url.endswith("/slides/a")
    with urllib.request.urlopen(url) as answer:
        assert b"openseadragon" in answer.read()
    process.send_signal(how)
    _, said = process.communicate(timeout=20)
    assert said == ""
    assert process.returncode in (0, -how), "a server's usual end"


def test_a_root_without_slides_is_served_and_says_so(tmp_path: Path) -> None:
    process = start("view", "--home", tmp_path / "none", "--port", "0", "--no-browser", "--json")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline() + process.stdout.readline() + process.stdout.readline())["url"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}api/slides")
    assert "add" in json.loads(refused.value.read())["error"]
    process.kill()
    process.communicate()
    assert not (tmp_path / "none").exists(), "looking makes no folder"


def test_an_unknown_slide_or_a_port_that_is_taken_is_one_line(finished: Path) -> None:
    ran = command("view", "b", "--home", finished / "home")
    assert (ran.exit_code, "b: no such slide here" in ran.stderr) == (1, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = command("view", "--home", finished / "home", "--port", str(port))
    assert ran.exit_code == 1
    assert ran.stderr.startswith(f"error: port {port} of 127.0.0.1 is taken")
    assert ran.stderr.count("\n") == 1
