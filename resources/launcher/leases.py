"""GPUs of one machine, leased by locked files: a lock ends with the last process that holds the file open.

The files are everybody's: a machine has more than one user, and a lease that another cannot see protects nothing.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from resources.errors import BadInput
from resources.launcher.devices import physical, usable
from resources.launcher.protocol import Busy
from resources.lock import holder_of, try_lock


@dataclass(frozen=True)
class Lease:
    """Some GPUs for one job. Leaving the block closes our side; the job's keeper holds on."""

    devices: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them."""
    files: tuple[IO[str], ...]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """To be inherited by the keeper."""
        return tuple(file.fileno() for file in self.files)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self.files:
            file.close()


def take(folder: Path, total: int, wanted: int, name: str) -> Lease:
    """Lock `wanted` of `total` GPUs, or of those among them that this process may use, or none at all.

    Raises:
        Busy: when too few are free; says who holds the others.
        BadInput: when there will never be enough, or another user keeps the files closed.
    """
    devices = usable(total)
    if wanted > len(devices):
        allowed = f"may use {len(devices)} ({', '.join(devices)})"
        raise BadInput(f"{name} needs {wanted} GPUs and {allowed}: see CUDA_VISIBLE_DEVICES, and gpus in compute.yaml")
    try:
        held = _lock(folder, devices, wanted) if wanted else {}
    except PermissionError as error:
        raise BadInput(
            f"{error.filename} is another user's, and without it nobody knows which GPUs are free: have its owner run "
            f"`chmod 1777 {folder}; chmod 666 {folder}/gpu-*`, or name another lease_folder in compute.yaml"
        ) from error
    for file in held.values():
        _sign(file, name)
    return Lease(tuple(held), tuple(held.values()))


def _lock(folder: Path, devices: Sequence[str], wanted: int) -> dict[str, IO[str]]:
    """The first `wanted` devices that are free, each with its locked file."""
    _share(folder)
    paths = {device: folder / f"gpu-{name}" for device, name in physical(devices).items()}
    held: dict[str, IO[str]] = {}
    with ExitStack() as stack:
        for device, path in paths.items():
            file = try_lock(path, _opened) if len(held) < wanted else None
            if file is not None:
                held[device] = stack.enter_context(file)
        if len(held) < wanted:
            holders = {holder_of(path) for device, path in paths.items() if device not in held}
            said = f"{wanted} GPUs wanted, {len(held)} of {len(paths)} free"
            raise Busy(f"{said}; held by {', '.join(sorted(holders))}")
        stack.pop_all()
    return held


def _share(folder: Path) -> None:
    """Like /tmp, whatever the umask of who comes first; a folder that somebody made on purpose stays as it is."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)


def _opened(path: Path) -> IO[str]:
    """The file, to read and write for every user, whatever the umask of who made it."""
    # Not O_CREAT on a file that is there: in a folder like /tmp the kernel may refuse it for another user's file.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags), "r+")
    except FileNotFoundError:
        return _made(path, flags | os.O_CREAT | os.O_EXCL)


def _made(path: Path, flags: int) -> IO[str]:
    try:
        made = os.open(path, flags)
    except FileExistsError:
        return _opened(path)
    os.fchmod(made, 0o666)
    return os.fdopen(made, "r+")


def _sign(file: IO[str], name: str) -> None:
    """For people; where the disk is full, the lock counts without it."""
    file.truncate()
    with suppress(OSError):
        # Not through the file's buffer, which would try again when the lease is given back.
        os.write(file.fileno(), name.encode())
