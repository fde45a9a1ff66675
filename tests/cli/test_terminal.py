"""What a person at a terminal meets: something within a second, one line at Ctrl-C, examples, JSON, completion."""

import json
import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stpath_assets.cli import main
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from tests.roots import command

SERVERS = ("gigapath serve",)
"""They say where they are, and go on."""


def leaves(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from leaves(found, f"{before}{name} ")
        else:
            yield before + name, found


COMMANDS = dict(leaves())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str) -> None:
    ran = command(*name.split(), "--help")
    assert f"stpath-assets {name}" in ran.stdout.replace("Usage: main", "")


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {*SERVERS, "completion"}))
def test_every_command_has_json(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option)]
    silent = [p.name for p in options if not p.help and not isinstance(p.type, click.Choice)]
    assert [n for n in silent if n not in ("replicas", "port")] == []


def at_terminal(*arguments: str | Path, interrupt_when: bytes | None = None) -> tuple[int, bytes, float, float]:
    """Runs a command in a terminal of its own. Returns its exit code, what it printed, the time until it printed anything, and
    until it ended after Ctrl-C.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONWARNINGS"] = "ignore"
        os.execv(sys.executable, [sys.executable, "-m", "stpath_assets", *map(str, arguments)])
    started, first, interrupted, said = time.monotonic(), 0.0, 0.0, b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, said
        try:
            more = os.read(terminal, 65536)
        except OSError:  # Linux says so where the other side is closed
            break
        if not more:
            break
        said += more
        first = first or time.monotonic() - started
        if interrupt_when is not None and not interrupted and interrupt_when in said:
            interrupted = time.monotonic()
            os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said, first, time.monotonic() - interrupted


def test_ctrl_c_ends_with_one_line_and_130(finished_home: Path) -> None:
    code, said, _, took = at_terminal(
        "run", "--home", finished_home, "--recheck", "--genes", "EPCAM,VIM,CD74", interrupt_when=b"prediction"
    )
    assert code == 130, said
    assert took < 4, "two seconds, and a slow machine"
    assert b"Traceback" not in said
    assert said.rstrip().endswith(b"interrupted; what was finished is kept, and the same command goes on from there")


@pytest.mark.usefixtures("blank_pictures")
def test_an_up_to_date_run_says_so_without_dagster(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("run", "--home", finished_home).exit_code == 0
    from stpath_assets.defs import materialize

    def fail(*_: object) -> None:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr(materialize, "materialize", fail)
    ran = command("run", "--home", finished_home)
    assert ran.exit_code == 0
    assert ran.stdout.startswith("a is up to date; run --recheck reads scans again\n")
    assert " a      " in ran.stdout, "the results are shown all the same"
    with pytest.raises(AssertionError, match="nothing is to be done"):
        raise command("run", "--home", finished_home, "--recheck").exception  # type: ignore[misc]


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_notices_what_changed_since(finished_home: Path) -> None:
    from stpath_assets.settings import load_settings
    from stpath_assets.stages import is_settled, settle

    settings = load_settings(finished_home)

    def settled() -> bool:
        return is_settled(settings, Registry(Store(finished_home)).live())

    assert command("run", "--home", finished_home).exit_code == 0
    assert settled()
    (figure,) = (finished_home / "figures" / "a").glob("map_VIM.png")
    figure.unlink()
    assert not settled(), "a picture is gone"
    assert command("run", "--home", finished_home).exit_code == 0
    assert figure.exists()
    assert settled()
    os.utime(finished_home.parent / "a.tif", (1, 1))
    assert not settled(), "the scan was written again"
    settle(settings, ["a"])
    assert settled()
    assert not is_settled(load_settings(finished_home, genes="VIM"), Registry(Store(finished_home)).live())
    Registry(Store(finished_home)).keep_regions("a", finished_home.parent / "no.geojson")
    assert not settled(), "it is registered with something else"
    Registry(Store(finished_home)).keep_regions("a", None)
    (finished_home / "dagster" / "settled.json").write_text("{")
    assert not settled()


def test_failed_slides_are_named_at_the_end(finished_home: Path) -> None:
    (finished_home.parent / "a.tif").unlink()
    ran = command("run", "--home", finished_home)
    assert ran.exit_code == 1
    assert "1 failed:\n  a: " in ran.stdout
    failed = json.loads(command("run", "--home", finished_home, "--json").stdout)
    assert failed[0]["slide_id"] == "a"
    assert "no such file" in failed[0]["failed"][0]


def test_an_id_that_differs_from_the_name_is_told(finished_home: Path, tmp_path: Path) -> None:
    from tests.conftest import tissue_image, write_tiff

    scan = write_tiff(tmp_path / "组织1.tif", tissue_image(seed=9))
    ran = command("add", scan, "--home", finished_home)
    assert (
        "note: 组织1.tif is registered as 1: an id has plain letters, digits and _ . -; --id gives another"
        in ran.stderr
    )
    (told,) = json.loads(command("add", scan, "--home", finished_home, "--json").stdout)
    assert told["slide_id"] == "1"
    assert "note" not in command("add", finished_home.parent / "a.tif", "--home", finished_home).stderr


def test_many_slides_are_predicted_into_a_folder(finished_home: Path, tmp_path: Path) -> None:
    out, scan = tmp_path / "out", finished_home.parent / "a.tif"
    given = ("--out", out, "--encoder", "demo", "--genes", "VIM")
    ran = command("predict", scan, tmp_path / "gone.tif", *given)
    assert ran.exit_code == 1
    assert "gone.tif: no such file" in ran.stderr
    assert f"{out / 'a.h5ad'}: " in ran.stdout
    assert [p.name for p in out.iterdir()] == ["a.h5ad"]
    again = command("predict", scan, tmp_path / "b.tif", *given)
    assert "exists already; give --force" in again.stderr
    twice = command("predict", scan, scan.parent / "x" / "a.tif", "--out", out, "--encoder", "demo")
    assert "two of the slides would be written there" in twice.stderr
    assert "2 slides need a folder" in command("predict", scan, "b.tif", "--out", tmp_path / "x.h5ad").stderr


@pytest.mark.parametrize("name", ["a.csv", "no/a.h5ad"])
def test_where_to_predict_is_checked_first(tmp_path: Path, name: str) -> None:
    ran = command("predict", "no-such-scan.svs", "--out", tmp_path / name, "--encoder", "demo")
    assert ran.exit_code == 1
    assert "no-such-scan" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    ran = command("completion", shell)
    assert ran.exit_code == 0
    assert "_STPATH_ASSETS_COMPLETE" in ran.stdout


def test_slides_are_completed(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stpath_assets.cli.completion import slides

    context = click.Context(COMMANDS["run"])
    context.params["home"] = str(finished_home)
    assert [item.value for item in slides(context, COMMANDS["run"].params[0], "")] == ["a"]
    assert slides(context, COMMANDS["run"].params[0], "x") == []
    monkeypatch.setenv("STPATH_NO_SUCH", "1")
    assert slides(context, COMMANDS["run"].params[0], "") == []


def test_the_terminal_is_told_at_once() -> None:
    code, said, first, _ = at_terminal("status", "--home", "/nowhere/at/all")
    assert code in (0, 1)
    assert said
    assert first < 5


@pytest.mark.parametrize(("name", "why"), [("a.txt", "a fitted predictor ends in .npz"), ("no/a.npz", "make it first")])
def test_where_to_write_a_predictor_is_checked_first(finished_home: Path, tmp_path: Path, name: str, why: str) -> None:
    ran = command("fit", "mine", "--slides", "cohort", "--home", finished_home, "--out", tmp_path / name)
    assert ran.exit_code == 1
    assert why in ran.stderr
