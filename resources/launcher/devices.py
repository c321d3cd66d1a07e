"""Which GPUs of this machine a process may use: all, or those that CUDA_VISIBLE_DEVICES leaves it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def present() -> int:
    """How many there are to use."""
    found, named = _built_in(), _named()
    return found if named is None or not found else len(named)


def memory_gib() -> float:
    """What the smallest GPU of this machine offers to a process, GiB; an H200's where NVIDIA's tool finds none."""
    totals = [float(total) for (total,) in _asked("memory.total") if total.isdecimal()]
    return min(totals) / 1024 - _DRIVER_GIB if totals else _H200_GIB


_DRIVER_GIB = 0.7
"""Of a GPU's memory by NVIDIA's account (H200: 143,771 MiB), what torch does not see (139.8 GiB)."""
_H200_GIB = 139.0


def usable(most: int) -> tuple[str, ...]:
    """Up to `most` GPUs, each by the name that CUDA_VISIBLE_DEVICES takes."""
    named = _named()
    return tuple(map(str, range(most))) if named is None else named[:most]


def physical(devices: Sequence[str]) -> dict[str, str]:
    """Names of the GPUs themselves, the same for every user: an index each; a part of one (MIG) keeps its own."""
    uuids = [] if all(map(str.isdecimal, devices)) else _asked("index", "uuid")
    return {device: _physical(device, uuids) for device in devices}


def _built_in() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _physical(device: str, uuids: Sequence[Sequence[str]]) -> str:
    if device.isdecimal():
        return str(int(device))
    return next((index for index, uuid in uuids if uuid.startswith(device)), device.replace("/", "-"))


def _named() -> tuple[str, ...] | None:
    """What the variable names; like CUDA, up to the first that is no GPU."""
    if VISIBLE not in os.environ:
        return None
    words = (word.strip() for word in os.environ[VISIBLE].split(","))
    return tuple(dict.fromkeys(takewhile(_is_gpu, words)))


def _is_gpu(word: str) -> bool:
    return word.isdecimal() or word.startswith(("GPU-", "MIG-"))


def _asked(*fields: str) -> list[list[str]]:
    """A row of the fields for every GPU; none without NVIDIA's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    rows = [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == len(fields)]
