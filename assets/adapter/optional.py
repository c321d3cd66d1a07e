"""Packages that make a training faster on a GPU, and that a CPU does without: triton, liger-kernel."""

from functools import cache
from importlib.util import find_spec


@cache
def is_installed(package: str) -> bool:
    """Whether it can be imported here; nothing is."""
    return find_spec(package) is not None
