"""`lorascope ui`: this process becomes Dagster's, with the store and the instance that `lorascope run` uses."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from dagster_project.run import prepare_instance
from resources.errors import BadInput
from resources.home import find_home
from resources.ports import HOST
from resources.sources import PROJECT

PLACES = ("LORASCOPE_HOME", "LORASCOPE_EXPERIMENTS", "LORASCOPE_COMPUTE", "LORASCOPE_ADAPTERS")
"""Environment variables that name a file or folder."""

SOCKET_FOLDER_BYTES = 107 - len("/") - len("tmp12345678")
"""Longest name of a folder in which a socket that tempfile names can lie: Linux takes 107 in all (man 7 unix)."""

SUPERSEDED = "ignore:Function `dev_command` is superseded"
"""In the form of PYTHONWARNINGS."""


def become_ui(port: int) -> NoReturn:
    """Replace this process by `dagster dev` on a port of this machine.

    Raises:
        BadInput: when its parts could not speak to each other.
    """
    _check_sockets(tempfile.gettempdir())
    _keep_places()
    home = prepare_instance(find_home())
    os.environ["DAGSTER_HOME"] = str(home)
    # `dg dev`, to which Dagster points whoever starts `dagster dev`, is in a package that we do not need.
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), SUPERSEDED)))
    os.chdir(home)  # Dagster warns of a dagster.yaml in the working folder that is not its own
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As for a command that a script starts with `&`: Dagster would give SIGTERM the same fate.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    dagster, workspace = Path(sys.executable).with_name("dagster"), PROJECT / "workspace.yaml"
    os.execv(dagster, [str(dagster), "dev", "-w", str(workspace), "-h", HOST, "-p", str(port)])  # noqa: S606


def _check_sockets(folder: str) -> None:
    """Dagster's processes speak through sockets in the temporary folder, which gRPC names by a URI."""
    if len(os.fsencode(folder)) > SOCKET_FOLDER_BYTES or set("#?%") & set(folder):
        raise BadInput(
            f"Dagster's sockets cannot lie in {folder}: set TMPDIR to a path of at most {SOCKET_FOLDER_BYTES} bytes "
            "without #, ? and %, such as /tmp"
        )


def _keep_places() -> None:
    """Relative to the folder in which the command was given, which is not the one that Dagster works in."""
    for name in PLACES:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())
