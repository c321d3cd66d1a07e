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


def usable(most: int) -> tuple[str, ...]:
    """Up to `most` GPUs, each by the name that CUDA_VISIBLE_DEVICES takes."""
    named = _named()
    return tuple(map(str, range(most))) if named is None else named[:most]


def physical(devices: Sequence[str]) -> dict[str, str]:
    """Names of the GPUs themselves, the same for every user: an index each; a part of one (MIG) keeps its own."""
    uuids = [] if all(map(str.isdecimal, devices)) else _uuids()
    return {device: _physical(device, uuids) for device in devices}


def _built_in() -> int:
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _physical(device: str, uuids: Sequence[tuple[str, str]]) -> str:
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


def _uuids() -> list[tuple[str, str]]:
    """Index and UUID of every GPU; none without NVIDIA's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=index,uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    pairs = (line.partition(", ") for line in done.stdout.splitlines())
    return [(index, uuid.strip()) for index, _, uuid in pairs]
