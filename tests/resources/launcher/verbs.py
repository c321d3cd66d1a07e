"""Calls that jobs of the launcher's tests make: each ends in its own way."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

import resources.progress as progress_module
from resources.errors import BadInput, Interrupted
from resources.progress import Progress
from resources.section import Section
from resources.whole import write_whole


class PlayConfig(Section):
    """What the play-acting verbs are told."""

    text: str = "hello"
    number: int = Field(default=3, ge=0)
    seconds: float = 0.0


class PlayMetrics(BaseModel):
    """What they answer."""

    model_config = ConfigDict(frozen=True)

    number: int
    cost_usd: float = 0.0


class Note:
    """An artifact of one text file."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def open(cls, path: Path) -> "Note":
        return cls((path / "note.txt").read_text())

    def table(self) -> pa.Table:
        return pa.table({"text": [self.text], "length": pa.array([len(self.text)], pa.int32())})


def succeed(*, play: PlayConfig, out: Path, progress: Progress) -> PlayMetrics:
    (out / "note.txt").write_text(play.text)
    for done in range(play.number):
        progress.say(f"line {done}")
        time.sleep(play.seconds / play.number)
    return PlayMetrics(number=play.number, cost_usd=0.25)


def paint(*, play: PlayConfig, out: Path, scratch: Path, progress: Progress) -> PlayMetrics:
    """Show a picture, and end only once somebody has seen it."""
    progress_module.PICTURE_S = 0.0
    progress.picture("loss", play.text.encode)
    deadline = time.monotonic() + 60
    while not (scratch / "seen").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (out / "note.txt").write_text("done")
    return PlayMetrics(number=int((scratch / "seen").exists()))


def join_input(*, play: PlayConfig, notes: Path, out: Path) -> PlayMetrics:
    (out / "note.txt").write_text(Note.open(notes).text + play.text)
    return PlayMetrics(number=1)


def fail(*, play: PlayConfig, out: Path) -> PlayMetrics:
    raise ZeroDivisionError(f"the answer is {play.number}")


def refuse(*, play: PlayConfig, out: Path) -> PlayMetrics:
    raise BadInput(f"play.text is '{play.text}': write something kinder")


def fail_on_rank_1(*, play: PlayConfig, out: Path) -> PlayMetrics:
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("rank 1 divides by zero")
    time.sleep(60)
    return PlayMetrics(number=0)


def die_on_rank_1(*, play: PlayConfig, out: Path) -> PlayMetrics:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return PlayMetrics(number=0)


def count_ranks(*, play: PlayConfig, out: Path, progress: Progress) -> PlayMetrics:
    rank = os.environ["RANK"]
    print(f"stdout of rank {rank}")
    progress.say(f"rank {rank} speaks")
    (out / f"{rank}.txt").write_text(os.environ["OMP_NUM_THREADS"])
    if rank == "1":
        time.sleep(0.5)
        (out / "note.txt").write_text("written last")
    return PlayMetrics(number=int(os.environ["WORLD_SIZE"]))


def hang(*, play: PlayConfig, out: Path, progress: Progress) -> PlayMetrics:
    progress.say("hanging")
    time.sleep(120)
    return PlayMetrics(number=0)


def hide_an_interrupt(*, play: PlayConfig, out: Path) -> PlayMetrics:
    """Is ended while a library imports a module lazily."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(120)
    except Exception as error:
        raise ModuleNotFoundError("could not import the model") from error
    return PlayMetrics(number=0)


def hang_with_stubborn_family(*, play: PlayConfig, out: Path, progress: Progress) -> PlayMetrics:
    """Ignores SIGTERM, and has a daemon in a session of its own that does so too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(120)"
    subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    progress.say("hanging")
    time.sleep(120)
    return PlayMetrics(number=0)


def hang_once(*, play: PlayConfig, out: Path, scratch: Path, progress: Progress) -> PlayMetrics:
    """The first attempt does not stop when it is told to."""
    if not (scratch / "tried").exists():
        (scratch / "tried").touch()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        progress.say("hanging")
        time.sleep(120)
    (out / "note.txt").write_text("second attempt")
    return PlayMetrics(number=2)


def forget_a_child(*, play: PlayConfig, out: Path) -> PlayMetrics:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
    (out / "note.txt").write_text("done")
    return PlayMetrics(number=0)


def chatter(*, play: PlayConfig, out: Path) -> PlayMetrics:
    """Print `number` megabytes."""
    line = "x" * 999 + "\n"
    for _ in range(play.number):
        sys.stdout.write(line * 1000)
    (out / "note.txt").write_text("done")
    return PlayMetrics(number=play.number)


def shout(*, play: PlayConfig, out: Path, progress: Progress) -> PlayMetrics:
    """Three messages of `number` bytes each."""
    for letter in "abc":
        progress.say(letter * play.number)
    (out / "note.txt").write_text("done")
    return PlayMetrics(number=play.number)


def save_and_stop(*, play: PlayConfig, out: Path, scratch: Path, progress: Progress) -> PlayMetrics:
    """Count to `number`, a step every 0.1 s, each step once, over as many attempts as it takes.

    `text: deaf` heeds no warning of the walltime's end, as stages do whose finished shards are all that they keep.
    """
    counter = scratch / "count"
    count = int(counter.read_text()) if counter.exists() else 0
    while count < play.number:
        time.sleep(0.1)
        count += 1
        progress.say(f"step {count}")
        write_whole(counter, str(count))  # a signal may end us at any moment
        if progress.stopping and play.text != "deaf":
            raise Interrupted(f"saved at {count}")
    (out / "note.txt").write_text("done")
    return PlayMetrics(number=count)


def vanish(*, play: PlayConfig, out: Path, scratch: Path) -> PlayMetrics:
    """Take the keeper with us, as a dying node would, in the first attempt."""
    if not (scratch / "tried").exists():
        (scratch / "tried").touch()
        keeper = os.getppid()
        os.kill(keeper, signal.SIGKILL)
        time.sleep(60)
    (out / "note.txt").write_text("second attempt")
    return PlayMetrics(number=2)


def leave_without_result(*, play: PlayConfig, out: Path) -> PlayMetrics:
    os._exit(0)


def truncate_result(*, play: PlayConfig, out: Path) -> PlayMetrics:
    (out / "note.txt").write_text("done")
    vars(sys.modules["__main__"])["write_whole"] = lambda path, text: path.write_text(text[:20])
    return PlayMetrics(number=0)


def crash_after_result(*, play: PlayConfig, out: Path) -> PlayMetrics:
    (out / "note.txt").write_text("done")
    vars(sys.modules["__main__"])["leave"] = lambda _: os.kill(os.getpid(), signal.SIGSEGV)
    return PlayMetrics(number=7)


def fail_and_never_end(*, play: PlayConfig, out: Path) -> PlayMetrics:
    """As one of several processes in whose interpreter's end NCCL waits for the others."""
    atexit.register(lambda: time.sleep(3600))
    raise RuntimeError("one process alone has failed")


def crash_when_python_ends(*, play: PlayConfig, out: Path) -> PlayMetrics:
    (out / "note.txt").write_text("done")
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    print("the last word", end="")
    return PlayMetrics(number=7)
