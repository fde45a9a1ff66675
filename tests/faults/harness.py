"""Runs commands on data roots under faults: kills, failing writes, a clock that jumps; and looks at what is left.

A process that has imported everything forks a child for each command, which takes a tenth of the time of a new process. It
preloads `shim.c`, so faults strike below Python. It never opens a data root itself: looking at one is a command, too.
"""

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {"ENOSPC": 1, "EIO": 2, "short": 3}
"""Faults of writes, by their number in `shim.c`."""

RUN = ("run", "--encoder", "demo", "--genes", "EPCAM,VIM")
RUN_OTHER = ("run", "--encoder", "demo", "--genes", "EPCAM,VIM,CD74")


def build_shim(folder: Path) -> Path:
    """Compiles `shim.c`."""
    library = folder / "shim.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "shim.c", "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """A fault of writes below a folder: from the call `at` on, `times` calls, 0 for all later ones."""

    kind: str
    at: int
    times: int = 0


@dataclass
class Ended:
    """How a command ended: its exit code, negative for a signal, what it printed, and how many writes it made below its root."""

    code: int
    said: str = ""
    writes: int = 0
    seconds: float = 0.0


def run(
    home: Path,
    *commands: Sequence[str],
    kill_after_s: float | None = None,
    fault: Fault | None = None,
    jump: tuple[int, int] | None = None,
) -> Ended:
    """Runs commands, one after the other, in a forked child. `jump` is (seconds, at) of `clock_jump`."""
    said, counted = home.parent / f"{home.name}.said", home.parent / f"{home.name}.writes"
    for path in (said, counted):
        path.unlink(missing_ok=True)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(home, commands, said, counted, fault, jump)
    if kill_after_s is not None:
        while time.monotonic() < began + kill_after_s:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return Ended(0, seconds=time.monotonic() - began)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = said.read_text(errors="replace") if said.exists() else ""
    writes = int(counted.read_text() or 0) if counted.exists() else 0
    return Ended(code, text, writes, time.monotonic() - began)


def _child(
    home: Path,
    commands: Sequence[Sequence[str]],
    said: Path,
    counted: Path,
    fault: Fault | None,
    jump: tuple[int, int] | None,
) -> None:
    from stpath_assets.cli import main

    code = 0
    shim = ctypes.CDLL(None)
    os.environ["STPATH_HOME"] = str(home)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    # As a process of its own has them: Dagster points both descriptors to its logs while a step runs.
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, closefd=False) for fd in (1, 2))
    if hasattr(shim, "fault_arm"):
        faulty = fault or Fault("ENOSPC", 1 << 60)
        shim.fault_arm(f"{home}/".encode(), KINDS[faulty.kind], ctypes.c_long(faulty.at), ctypes.c_long(faulty.times))
        if jump:
            shim.clock_jump(ctypes.c_long(jump[0]), ctypes.c_long(jump[1]))
    for command in commands:
        try:
            main([*command, "--home", str(home)], standalone_mode=True)
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            os.write(out, traceback.format_exc().encode())
            code = 70
        if code:
            break
    with suppress(OSError):
        sys.stdout.flush()
    if hasattr(shim, "fault_arm"):
        shim.fault_calls.restype = ctypes.c_long
        counted.write_text(str(shim.fault_calls()))
    os._exit(code)


def ask(question: "Callable[[], object]", timeout_s: float = 120) -> object:
    """Returns what a function of the lake returns, asked in a forked child. Raises `AssertionError` with its traceback."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            answer: object = {"answer": question()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with os.fdopen(write, "w") as out:
            json.dump(answer, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        got = json.loads(answers.read() or "{}")
    os.waitpid(pid, 0)
    assert "answer" in got, got.get("error", "the child that looks at the root died")
    return got["answer"]


# A file that a failed transaction has left is not taken over; the next one has another name and the same content.
VARYING = (
    "registered_at",
    "begin_snapshot",
    "made_at",
    "imported_at",
    "run_id",
    "at",
    "arrival",
    "modified_ns",
    "file",
)


def content(home: Path) -> dict[str, str]:
    """What a root holds, by table: number of rows and a hash of them all, without times and measured speeds."""

    def look() -> dict[str, str]:
        from stpath_assets.storage import Store

        store, found = Store(home), {}
        store.open()
        with store.lake.reading() as cursor:
            names = cursor.execute(
                "select table_name, list(column_name) from information_schema.columns "
                "where table_catalog = 'lake' and table_schema = 'parts' group by 1"
            ).fetchall()
            for table, columns in names:
                kept = [f'"{c}"' for c in sorted(columns) if not _varies(table, c)]
                hashed = f"sum(hash(({', '.join(kept)}))::hugeint)::varchar" if kept else "''"
                # A fingerprint stays for the earlier states of its parts; those of the present ones are compared.
                of = "where digest in (select digest from lake.parts.lineage)" if table == "fingerprints" else ""
                found[table] = str(
                    cursor.execute(f'select count(*), {hashed} from lake.parts."{table}" {of}').fetchone()
                )
        return found

    return dict(ask(look))  # type: ignore[call-overload]


def _varies(table: str, column: str) -> bool:
    return (
        column in VARYING or column.endswith(("_s", "_at", "per_second", "_bytes")) or table in ("gigapath_throughput",)
    )


def complaints(home: Path) -> list[str]:
    """What is wrong with a root: parts that are torn, gone or half registered, tables that cannot be asked."""

    def look() -> list[str]:
        from stpath_assets.doctor.root import counts, lake, tables
        from stpath_assets.storage import Store

        store = Store(home)
        if not store.is_there():
            return []
        store.create()
        checks = [lake(store), tables(store), counts(store)]
        return [c.said for c in checks if not c.ok]

    return list(ask(look))  # type: ignore[call-overload]


@dataclass(frozen=True)
class Work:
    """Commands on a root in a known state, and the root that they leave when nothing disturbs them."""

    name: str
    start: Path
    commands: tuple[tuple[str, ...], ...]
    expected: dict[str, str]
    seconds: float
    writes: int


@dataclass
class Tally:
    """What a series of faults came to."""

    what: str
    injected: int = 0
    unnoticed: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)
    moments: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        by = ", ".join(f"{k} {v}" for k, v in sorted(self.moments.items()))
        return (
            f"{self.what}: {self.injected} injected ({by}), {self.unnoticed} without effect on the command, "
            f"{self.survived} survived, {len(self.lost)} lost"
        )


def prepare(folder: Path, quick: bool = False) -> list[Work]:
    """Draws two small scans, one with measured spots, and brings a root through all states that work begins in; `quick` leaves
    out those that take a second run.
    """
    from tests.conftest import tissue_image, write_tiff
    from tests.roots import write_spots

    scans = folder / "scans"
    scans.mkdir(parents=True)
    for i, name in enumerate("ab"):
        write_tiff(scans / f"{name}.tif", tissue_image(600, 800, seed=i))
    spots = write_spots(scans, "a", x=220)
    known = ("--organ", "Breast", "--tech", "Visium")
    add = (("add", str(scans / "a.tif"), *known, "--spots", str(spots)), ("add", str(scans / "b.tif"), *known))
    manifest = scans / "manifest.csv"
    manifest.write_text(f"file,organ,tech\n{scans / 'a.tif'},Breast,Visium\n{scans / 'b.tif'},Breast,Visium\n")
    empty = folder / "empty"
    empty.mkdir()
    works: dict[str, Work] = {}

    def work(name: str, start: Path, *commands: tuple[str, ...]) -> Path:
        """Notes what commands do when nothing disturbs them, and returns the root that they leave: the next one's start."""
        undisturbed = folder / f"after-{name.replace(' ', '-')}"
        shutil.copytree(start, undisturbed)
        ended = run(undisturbed, *commands)
        assert ended.code == 0, f"{name}: {ended.said}"
        works[name] = Work(name, start, commands, content(undisturbed), ended.seconds, ended.writes)
        return undisturbed

    work("ingestion", empty, ("add", "--manifest", str(manifest)))
    registered = work("registration with spots", empty, *add)
    finished = work("stages", registered, RUN)
    if not quick:
        replaced = work("replacement", finished, RUN_OTHER)
        work("maintain", replaced, ("maintain",))
    work("retire and back", finished, ("retire", "a"), ("add", str(scans / "a.tif")))
    return list(works.values())


def kill_once(work: Work, home: Path, rng: random.Random, tally: Tally) -> None:
    """Kills the work at a random moment, looks at what is left, and does it again."""
    for _ in range(20):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(work.start, home)
        ended = run(home, *work.commands, kill_after_s=rng.uniform(0.02, work.seconds))
        if ended.code < 0:
            break
    tally.injected += 1
    tally.moments[work.name] = tally.moments.get(work.name, 0) + 1
    _judge(work, home, tally, f"{work.name}, killed after {ended.seconds:.2f} s")


def fault_once(work: Work, home: Path, fault: Fault, tally: Tally) -> None:
    """Lets writes of the work fail, looks at what it said and left, and does it again without faults."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(work.start, home)
    ended = run(home, *work.commands, fault=fault)
    tally.injected += 1
    tally.moments[work.name] = tally.moments.get(work.name, 0) + 1
    what = f"{work.name}, {fault.kind} at write {fault.at} of {work.writes}, {fault.times or 'all later'}"
    if ended.code < 0 or "Traceback" in ended.said or "a bug" in ended.said:
        tally.lost.append(f"{what}: exit code {ended.code}, said: {ended.said[-1500:]}")
        return
    if ended.code == 0:
        tally.unnoticed += 1
    elif not [line for line in ended.said.splitlines() if line.startswith(("error: ", "Error: "))]:
        tally.lost.append(f"{what}: exit code {ended.code} without an error line: {ended.said[-500:]}")
        return
    _judge(work, home, tally, what)


def jump_once(work: Work, home: Path, seconds: int, at: int, tally: Tally) -> None:
    """Lets the wall clock jump in the middle of the work: it ends well, and so does doing it again at the right time."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(work.start, home)
    ended = run(home, *work.commands, jump=(seconds, at))
    tally.injected += 1
    tally.moments[work.name] = tally.moments.get(work.name, 0) + 1
    if ended.code:
        tally.lost.append(f"{work.name}, the clock jumps by {seconds} s at write {at}: {ended.said[-1500:]}")
        return
    tally.unnoticed += 1
    _judge(work, home, tally, f"{work.name}, the clock jumps by {seconds} s at write {at}")


@dataclass(frozen=True)
class Pair:
    """Two series of commands that begin at once on a root, and what must hold afterwards."""

    name: str
    start: Path
    one: tuple[tuple[str, ...], ...]
    two: tuple[tuple[str, ...], ...]
    then: tuple[tuple[str, ...], ...]
    expected: dict[str, str]


def pairs_of(works: list[Work]) -> list[Pair]:
    """Pairs of the works. After `then`, a root holds what it holds when nothing disturbed its commands."""
    by = {w.name: w for w in works}
    stages, ingestion, replacement, maintain = (by[n] for n in ("stages", "ingestion", "replacement", "maintain"))
    retire, registration = by["retire and back"], by["registration with spots"]
    asking = (("sql", "select slide_id, count(*) from stpath_predictions group by 1"),) * 4
    back, run_, other = retire.commands[1:], stages.commands, replacement.commands
    return [
        Pair("two additions", ingestion.start, ingestion.commands, ingestion.commands, ingestion.commands, ingestion.expected),
        Pair("two additions, one with spots", registration.start, registration.commands, ingestion.commands,
             registration.commands, registration.expected),
        Pair("two runs", stages.start, run_, run_, run_, stages.expected),
        Pair("two runs that want other genes", replacement.start, run_, other, other, replacement.expected),
        Pair("retire during a run", replacement.start, other, retire.commands[:1], (*back, *other), replacement.expected),
        Pair("maintain during a run", replacement.start, other, maintain.commands, other, replacement.expected),
        Pair("two maintain", maintain.start, maintain.commands, maintain.commands, maintain.commands, maintain.expected),
        Pair("maintain during questions", maintain.start, maintain.commands, asking, maintain.commands, maintain.expected),
        Pair("a run during questions", replacement.start, other, asking, other, replacement.expected),
    ]  # fmt: skip


def pair_once(pair: Pair, home: Path, rng: random.Random, tally: Tally) -> None:
    """Runs a pair at once, one of them a little later, and looks at what each said and at what is left."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(pair.start, home)
    first, second = (pair.one, pair.two) if rng.random() < 0.5 else (pair.two, pair.one)
    said = home.parent / "second.said"
    later = os.fork()
    if later == 0:
        time.sleep(rng.choice((0.0, rng.uniform(0, 0.5), rng.uniform(0, 6))))
        _child(home, second, said, home.parent / "second.writes", None, None)
    ended = [run(home, *first)]
    ended.append(Ended(os.waitstatus_to_exitcode(os.waitpid(later, 0)[1]), said.read_text(errors="replace")))
    tally.injected += 1
    tally.moments[pair.name] = tally.moments.get(pair.name, 0) + 1
    if all(e.code == 0 for e in ended):
        tally.unnoticed += 1
    for e in ended:
        told = [line for line in e.said.splitlines() if line.startswith(("error: ", "Error: "))]
        if e.code < 0 or "Traceback" in e.said or "a bug" in e.said or (e.code and not told):
            tally.lost.append(f"{pair.name}: exit code {e.code}: {e.said[-1500:]}")
            return
    _judge(Work(pair.name, pair.start, pair.then, pair.expected, 0, 0), home, tally, pair.name)


def _judge(work: Work, home: Path, tally: Tally, what: str) -> None:
    try:
        wrong = complaints(home)
        again = run(home, *work.commands)
        if again.code:
            wrong.append(f"done again: exit code {again.code}: {again.said[-1500:]}")
        else:
            wrong += complaints(home)
            found = content(home)
            wrong += [
                f"{t}: {found.get(t)}, undisturbed {work.expected.get(t)}"
                for t in sorted(found.keys() | work.expected.keys())
                if found.get(t) != work.expected.get(t)
            ]
            wrong += [f"left over: {p}" for p in home.rglob("*.tmp")]
    except AssertionError as e:
        wrong = [str(e)]
    if wrong:
        tally.lost.append(f"{what}: {'; '.join(wrong)[:2000]}")
    else:
        tally.survived += 1


def start() -> Path:
    """Prepares this process: preloads the shim, which takes a new process, and imports what commands need."""
    folder = Path(os.environ.get("FAULTS_FOLDER") or tempfile.mkdtemp(prefix="stpath-faults-"))
    if "FAULTS_FOLDER" not in os.environ:
        library = build_shim(folder)
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment = {
            **os.environ, **threads, "FAULTS_FOLDER": str(folder), "LD_PRELOAD": str(library),
            "XDG_CACHE_HOME": str(folder / "cache"), "STPATH_FIGURE_GENES": "EPCAM", "HF_HUB_OFFLINE": "1",
            "STPATH_SNAPSHOT_DAYS": "0",
            "MPLCONFIGDIR": str(folder / "matplotlib"),
        }  # fmt: skip
        os.execve(sys.executable, [sys.executable, "-m", "tests.faults.soak", *sys.argv[1:]], environment)
    del os.environ["LD_PRELOAD"]  # children of the children need no faults of their own
    import stpath_assets.cli.add
    import stpath_assets.cli.maintain
    import stpath_assets.cli.retire
    import stpath_assets.cli.run
    import stpath_assets.definitions
    import stpath_assets.defs.assets
    import stpath_assets.features.embedding
    import stpath_assets.prediction.stpath

    with suppress(AttributeError):
        _ = stpath_assets.definitions.defs
    return folder
