"""What Slurm is asked, and what follows when it does not answer: from a login node that is made up, without Slurm."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from resources.errors import BadInput
from resources.launcher.attempt import Attempt, JobError
from resources.launcher.deployment import Deployment
from resources.launcher.processes import marker
from resources.launcher.protocol import Busy, Order
from resources.launcher.slurm import SlurmLauncher
from tests.resources.launcher.conftest import build_attempt, build_job

LOGIN_NODE = """
import os, shlex, sys
from pathlib import Path

folder = Path(__file__).parent
command, *options = shlex.split(sys.argv[1])
with (folder / "asked").open("a") as asked:
    asked.write(command + "\\n")
(folder / "environment").write_text("\\n".join(os.environ))
if command == "sbatch":
    comment = next(option.partition("=")[2] for option in options if option.startswith("--comment="))
    with (folder / "jobs").open("a") as jobs:
        jobs.write(f"7 {comment}\\n")
    Path(options[-1]).with_name("rc").write_text("1")
if len((folder / "asked").read_text().split()) <= int((folder / "silent").read_text()):
    sys.exit(f"{command}: error: Socket timed out on send/recv operation")
if any("state:" in option for option in options):
    print("" if (folder / "gone").exists() else "state: RUNNING None")
    (folder / "gone").touch()
else:
    print("7" if command == "sbatch" else (folder / "jobs").read_text())
"""
"""Its first `silent` answers are lost. Every job gets number 7, fails at once with exit code 1, and is seen once."""


class Stopped(BaseException):
    """Stands for the interrupt that Dagster raises in the main thread."""


class Node:
    """The login node's folder."""

    def __init__(self, folder: Path, silent: int) -> None:
        folder.mkdir()
        (folder / "login.py").write_text(LOGIN_NODE)
        (folder / "silent").write_text(str(silent))
        (folder / "jobs").touch()
        (folder / "asked").touch()
        self.folder = folder

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()

    def attempt(self, root: Path, said: list[str]) -> Attempt:
        """An attempt of a job through this node."""
        launcher = SlurmLauncher(sys.executable, (sys.executable, str(self.folder / "login.py")))
        attempt = build_attempt(build_job(root, "succeed"), root, Deployment())
        return replace(attempt, launcher=launcher, ears=replace(attempt.ears, say=said.append))


def build_order(folder: Path) -> Order:
    folder.mkdir()
    return Order(("/bin/true",), {}, folder, "notes")


@pytest.mark.parametrize("silent", [1, 2, 3])
def test_a_job_that_slurm_took_and_did_not_say_so_is_not_submitted_again(tmp_path: Path, silent: int) -> None:
    node, said = Node(tmp_path / "node", silent), []
    with pytest.raises(JobError, match="exit code 1"):
        node.attempt(tmp_path, said).result({})
    assert node.asked.count("sbatch") == 1
    assert [line for line in said if "does not answer" in line] == said[: min(1, silent - 1)]


def test_a_run_directory_without_a_handle_waits_for_slurm_to_say_whether_its_job_is_there(tmp_path: Path) -> None:
    node, said = Node(tmp_path / "node", silent=2), []
    attempt = node.attempt(tmp_path, said)
    attempt.run.prepare(attempt.job)
    attempt.run.rc.write_text("1")
    (node.folder / "jobs").write_text(f"7 {marker('slurm:', attempt.run.path)}\n")
    with pytest.raises(JobError, match="exit code 1"):
        attempt.result({})
    assert "sbatch" not in node.asked
    assert "does not answer" in said[0] and said[1] == "attached to job 7, which was still there"
    assert attempt.run.handle() == "7"


def test_slurm_is_asked_rarely_about_a_job_that_goes_on_for_hours_and_quickly_when_it_may_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ended = 0.0, 6 * 3600.0
    asked: list[float] = []

    class Counting(SlurmLauncher):
        def status(self, handle: str) -> str:
            assert handle == "7"
            asked.append(now)
            return "running" if now < ended else ""

    def sleep(_: float) -> None:
        nonlocal now
        now += 0.5

    monkeypatch.setattr("resources.launcher.attempt.time", SimpleNamespace(monotonic=lambda: now))
    plain = Node(tmp_path / "node", 0).attempt(tmp_path, [])
    attempt = replace(plain, launcher=Counting(sys.executable), ears=replace(plain.ears, pause=sleep))
    assert attempt._wait("7") is None
    assert len([at for at in asked if at < 60]) > 15 and len(asked) < 6 * 120 + 100
    assert now < ended + 40


def test_a_job_is_gone_when_slurm_says_so_five_times_in_a_row_and_not_five_times_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    answers = ["", "", "", "", "running"] * 3

    class Forgetful(SlurmLauncher):
        def status(self, handle: str) -> str:
            assert handle == "7"
            asked.append(answers.pop(0) if answers else "")
            return asked[-1]

    def sleep(_: float) -> None:
        nonlocal now
        now += 0.5

    asked: list[str] = []
    monkeypatch.setattr("resources.launcher.attempt.time", SimpleNamespace(monotonic=lambda: now))
    plain = Node(tmp_path / "node", 0).attempt(tmp_path, [])
    attempt = replace(plain, launcher=Forgetful(sys.executable), ears=replace(plain.ears, pause=sleep))
    assert attempt._wait("7") is None
    assert len(asked) == 15 + 5


def test_what_a_job_said_just_before_it_vanished_is_heard(tmp_path: Path) -> None:
    done: list[str] = []
    attempt = build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment(), lambda: done.append("hear"))
    launcher = SimpleNamespace(status=lambda _: done.append("ask") or "", poll_s=0.0, slowest_poll_s=0.0)
    assert replace(attempt, launcher=launcher)._wait("gone") is None
    assert done == ["hear", "ask"] * 5 + ["hear"]


def test_an_interrupt_while_slurm_is_silent_stays_an_interrupt_and_says_what_may_be_left(tmp_path: Path) -> None:
    node, said = Node(tmp_path / "node", silent=99), []
    attempt = node.attempt(tmp_path, said)

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise Stopped

    with pytest.raises(Stopped):
        replace(attempt, ears=replace(attempt.ears, say=say)).result({})
    assert "the next run of this asset attaches to it" in said[1]


def test_an_allocation_that_we_run_in_says_nothing_about_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """salloc's SLURM_GPUS=1 would be obeyed by the srun of a job of four, SQUEUE_STATES=RUNNING hide a queued job."""
    kept = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"}
    allocation = ("SLURM_GPUS", "SLURM_MEM_PER_NODE", "SLURM_JOB_ID", "SLURM_NTASKS")
    habits = ("SBATCH_PARTITION", "SRUN_CPUS_PER_TASK", "SQUEUE_STATES", "SCANCEL_INTERACTIVE", "SCONTROL_ALL")
    for name in (*kept, *allocation, *habits):
        monkeypatch.setenv(name, "1")
    node = Node(tmp_path / "node", silent=0)
    node.attempt(tmp_path, []).launcher.submit(build_order(tmp_path / "run"))
    given = set((node.folder / "environment").read_text().split())
    assert given & {*kept, *allocation, *habits} == kept
    assert "PATH" in given and os.environ["SLURM_GPUS"] == "1"


def test_a_command_that_hangs_is_a_slurm_that_does_not_answer_and_waits_for_no_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result may be there long since; an ssh whose connection froze, or that asks for a password, never ends."""
    monkeypatch.setattr("resources.launcher.slurm.ANSWER_S", 0.5)
    (tmp_path / "login").write_text("#!/bin/sh\nreadlink /proc/self/fd/0 >> $0.stdin; sleep 20\n")
    (tmp_path / "login").chmod(0o755)
    launcher = SlurmLauncher(sys.executable, (str(tmp_path / "login"),))
    assert launcher.status("7") == "unknown: Slurm does not answer"
    assert launcher.ending("7") == "forgotten"
    with pytest.raises(Busy, match=r"^Slurm does not answer: squeue gave no answer in 0\.5 s$"):
        launcher.submit(build_order(tmp_path / "run"))
    assert set((tmp_path / "login.stdin").read_text().split()) == {"/dev/null"}


@pytest.mark.parametrize("prefix", [(), ("/bin/sh", "-c"), ("no-such-ssh", "login-node")])
def test_a_machine_without_slurm_is_told_where_slurm_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    launcher = SlurmLauncher(sys.executable, prefix)
    order = build_order(tmp_path / "run")
    for ask in (lambda: launcher.submit(order), lambda: launcher.find(order.run_dir)):
        with pytest.raises(BadInput, match=r"(sbatch|squeue|no-such-ssh).*compute\.yaml.*prefix"):
            ask()


def test_a_run_on_a_machine_without_slurm_ends_with_that_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"sbatch.*compute\.yaml"):
        build_attempt(build_job(tmp_path, "succeed"), tmp_path, Deployment(backend="slurm")).result({})
