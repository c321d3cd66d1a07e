"""Where the two web pages of an installation are, unless asked otherwise: this machine only."""

import socket

from resources.errors import BadInput

HOST = "127.0.0.1"
UI_PORT = 3000
"""Dagster (`lorascope ui`)."""
PAGES_PORT = 3030
"""Dashboards and reports (`lorascope serve`)."""


def check_free(port: int) -> None:
    """Refuse a port that something else listens on: servers say so late, or go on without it.

    Raises:
        BadInput: when it cannot be listened on.
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            said = f"port {port} of {HOST} cannot be used ({error.strerror}): choose another with --port"
            raise BadInput(said) from error
