"""A real PostgreSQL for the tests of the store, where its programs are."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = (
        [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    return next(
        (place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server of its own without a database name, on a socket in a folder that is deleted afterwards."""
    programs = _programs()
    if programs is None:
        reason = "no PostgreSQL programs (initdb, postgres) here"
        if os.environ.get("PHALANX_REQUIRE_POSTGRES"):
            pytest.fail(reason)
        pytest.skip(reason)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = {each.pw_name for each in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("no unprivileged user here to run PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # TMPDIR may be closed to the server's user
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        made = [str(programs / "initdb"), "-D", str(data), "-U", "phalanx", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, user=user, cwd=folder, timeout=300)
        settings = (
            "listen_addresses=",
            f"unix_socket_directories={folder}",
            "fsync=off",
            "max_connections=20",
        )
        options = [part for setting in settings for part in ("-c", setting)]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), *options],
                stdout=log,
                stderr=log,
                user=user,
                cwd=folder,
            )
        try:
            _await_postgres(folder, server)
            yield f"postgresql://phalanx@/{{}}?host={folder}"
        finally:
            server.terminate()
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """URL of an empty database."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres_server.format(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store goes: an SQLite file, then a PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    return request.getfixturevalue("postgres")


def _await_postgres(folder: Path, server: subprocess.Popen[bytes]) -> None:
    import time

    import psycopg

    for _ in range(1_200):
        if server.poll() is not None:
            pytest.fail(f"PostgreSQL ended: {(folder / 'log').read_text()}")
        try:
            psycopg.connect(f"postgresql://phalanx@/postgres?host={folder}", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL does not begin")
