"""Another user of this machine, as tests of shared homes and shared GPUs need one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Another user of this machine, with the umask of one who shares nothing."""
    if os.geteuid():
        pytest.skip("only root can act as another user")
    umask = os.umask(0o077)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.umask(umask)
