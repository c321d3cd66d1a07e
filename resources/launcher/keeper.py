"""Stands between a job and the process that started it, and lets nothing of the job outlive either.

Started by a back end, without site-packages: python -IS keeper.py PARENT GRACE_S RC STOP COMMAND...
PARENT 0 is whoever started it; RC `-` is not written.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <sys/prctl.h>
TICK_S = 0.2
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHED = (*ENDING, signal.SIGUSR1, signal.SIGCHLD)


def prctl(option: int, value: int) -> None:
    """The system call of that name; it cannot fail for the two options used here."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def spawn(command: list[str]) -> int:
    """Start the command in a process group of its own; it dies with this process even by SIGKILL."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Slurm's warning reaches every process of the job, and by default would end it before it can save.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def descendants() -> list[int]:
    """Every process below this one; a subreaper inherits those whose parent has ended."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    found, frontier = [], {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += frontier
    return found


def reap(child: int) -> tuple[int | None, bool]:
    """Collect whatever ended: the child's exit code if it was among them, and whether anything is left."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code, False
        if pid == 0:
            return code, True
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def signal_all(number: int) -> None:
    """Send a signal to every descendant."""
    for pid in descendants():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_all(child: int, grace_s: float) -> None:
    """SIGTERM to every descendant, SIGKILL to those left after the grace; returns when none is left."""
    signal_all(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while reap(child)[1]:
        if time.monotonic() > deadline:
            signal_all(signal.SIGKILL)
        time.sleep(0.01)


def watch(child: int, parent: int, stop: str, grace_s: float) -> int:
    """The child's exit code, or 128 + the signal that ended the watch; nothing of the job is left then."""
    while True:
        got = signal.sigtimedwait(WATCHED, TICK_S)
        number = got.si_signo if got else 0
        if number in (*ENDING, signal.SIGUSR1):
            touch(stop)
        code, left = reap(child)
        if number in ENDING or os.getppid() != parent:
            end_all(child, grace_s)
            return 128 + (number or signal.SIGHUP)
        if code is not None:
            if left:
                end_all(child, grace_s)
            return code if code >= 0 else 128 - code


def touch(path: str) -> None:
    """Make the file exist; a full disk must not keep a job from being ended."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    except OSError:
        return


def write_code(path: str, code: int) -> None:
    """Say that everything is over; without room on the disk the launcher sees this process gone instead."""
    try:
        with open(path + ".tmp", "w") as file:
            file.write(str(code))
        os.replace(path + ".tmp", path)
    except OSError:
        return


def main(arguments: list[str]) -> int:
    """Run the command until it, the parent, or somebody's patience ends."""
    parent, grace_s, rc, stop, *command = arguments
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        # GPU leases are inherited files: they must end with this process, not with a stray child.
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                continue
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    child = spawn(command)
    code = watch(child, int(parent) or os.getppid(), stop, float(grace_s))
    if rc != "-":
        write_code(rc, code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
