"""Triton and liger-kernel: what a training on a GPU takes if it can, and a CPU does without."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def is_usable(package: str) -> bool:
    """Whether its kernels run here; nothing is imported."""
    return find_spec(package) is not None and missing_for_kernels() is None


@cache
def missing_for_kernels() -> str | None:
    """What Triton lacks to start its kernels: itself, or what it compiles a launcher in C with."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "there is no C compiler (gcc, clang or $CC)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are missing (Python.h, in python3-dev)"
    return None
