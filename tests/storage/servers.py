"""Servers for the tests, of this machine alone: PostgreSQL from the system, S3 by moto."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from stpath_assets.storage import lake

USER, PASSWORD = "stpath", "s3cret-word"


class Postgres:
    """A PostgreSQL server of this machine: a folder and a port of its own, reached from 127.0.0.1 only, by password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam("postgres")
            for path in (folder, password):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "-D", "data", "-U", USER, f"--pwfile={password}", "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"
        )
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def create(self, database: str) -> str:
        """A new database's address, with the password in it."""
        subprocess.run(
            [self._programs / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database],
            check=True, capture_output=True, env={**os.environ, "PGPASSWORD": PASSWORD},
        )  # fmt: skip
        return self.address(database)

    def address(self, database: str) -> str:
        return f"postgres://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        done = subprocess.run(
            [*as_postgres, self._programs / program, *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    known = os.getuid() != 0 or (shutil.which("setpriv") and any(u.pw_name == "postgres" for u in pwd.getpwall()))
    if not found or not found[-1].with_name("postgres").exists() or not known:
        pytest.skip("needs a PostgreSQL server")
    # pytest's own folders are closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="stpath-postgres-") as folder:
        Path(folder).chmod(0o700)
        server = Postgres(found[-1].parent, Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The address of a new database."""
    yield postgres.create(f"lake_{uuid.uuid4().hex}")
    for known in [h for h in lake._instances if h.on_postgres]:
        lake._forget(known)


@contextmanager
def object_store() -> Iterator[str]:
    """The address of a server of S3's protocol."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture
def bucket(object_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket, with what opens it in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any-secret")
    name = f"lake-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()
