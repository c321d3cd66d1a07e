"""Debian's PostgreSQL on loopback, with a folder and a port of its own, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIRED = "LORASCOPE_REQUIRE_POSTGRES"
"""Environment variable: a missing server is a failure, not a skip (set by `.ci/run`)."""
USER = "postgres"


class Unavailable(RuntimeError):
    """Why there is no PostgreSQL here."""


def binaries() -> Path:
    """The newest server's folder; installed with apt-get when we may.

    Raises:
        Unavailable: without it, and without root or a package source.
    """
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False, capture_output=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"]
        subprocess.run(command, env=quiet, check=False, capture_output=True)
        found = _installed()
    if found is None:
        raise Unavailable("PostgreSQL is missing: `apt-get install postgresql` as root")
    return found


def _installed() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def running() -> Iterator[str]:
    """An empty database `lorascope`; its address.

    Raises:
        Unavailable: when there is no server, or it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="lorascope-postgres-"))
    try:
        # The server refuses to run as root.
        user = USER if os.geteuid() == 0 else None
        if user:
            folder.chmod(0o755)
            shutil.chown(folder, user, user)
        programs, port = binaries(), _free_port()
        data = folder / "data"
        _do([programs / "initdb", "-A", "trust", "-U", USER, "--no-sync", "-D", data], user)
        settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        _do([*control, "-o", settings, "start"], user)
        try:
            _do([programs / "createdb", "-h", "127.0.0.1", "-p", port, "-U", USER, "lorascope"], user)
            yield f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/lorascope"
        finally:
            _do([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _do(command: list[object], user: str | None) -> None:
    # Into a file: the server that pg_ctl starts would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as said:
        words = [str(part) for part in command]
        done = subprocess.run(words, user=user, group=user, cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        said.seek(0)
        text = said.read()
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {text[-500:]}")
