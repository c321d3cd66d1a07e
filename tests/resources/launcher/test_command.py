"""What a worker is told by its environment, wherever it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.launcher.attempt import order_of
from resources.launcher.command import environment, script
from resources.launcher.deployment import Deployment
from resources.launcher.processes import marked, marker
from resources.launcher.protocol import MARKER
from tests.resources.launcher.conftest import build_attempt, build_job

SHOW = "from resources.home import find_home; print(find_home().root, find_home().experiments)"


@pytest.mark.parametrize("named", ["home", None])
def test_a_worker_on_another_machine_finds_the_home_of_whoever_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    """A relative name is meant from where it was said; ssh hands on no variable at all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORASCOPE_HOME", raising=False)
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", "mine")
    if named:
        monkeypatch.setenv("LORASCOPE_HOME", named)
    shown = script((sys.executable, "-c", SHOW), environment(build_job(tmp_path, "succeed")))
    here = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True, env={"PATH": ""})
    there = subprocess.run(["/bin/sh", "-c", shown], capture_output=True, text=True, check=True, env={"PATH": ""})
    home = str(tmp_path / named) if named else here.stdout.split()[0]
    assert there.stdout.split() == [home, str(tmp_path / "mine")]


def test_a_worker_keeps_the_docstrings_that_transformers_reads_whatever_its_user_set(tmp_path: Path) -> None:
    shown = script(
        (sys.executable, "-c", "import sys; print(sys.flags.optimize)"), environment(build_job(tmp_path, "succeed"))
    )
    told = subprocess.run(["/bin/sh", "-c", shown], capture_output=True, check=True, env={"PYTHONOPTIMIZE": "2"})
    assert told.stdout.split() == [b"0"]


def test_a_process_that_gives_itself_another_name_is_still_known_as_the_jobs(tmp_path: Path) -> None:
    """As vLLM's: its engine and workers would else lie on the GPUs of the next job after their keeper was killed."""
    (tmp_path / "run").mkdir()
    mine = marker("local:", tmp_path / "run")
    rename = "import setproctitle; setproctitle.setproctitle('VLLM::EngineCore'); print('named', flush=True); input()"
    env = {**os.environ, **environment(build_job(tmp_path, "succeed")), MARKER: mine}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", rename], env=env, stdin=pipe, stdout=pipe, text=True) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "named\n"
        assert Path(f"/proc/{engine.pid}/cmdline").read_bytes().startswith(b"VLLM::EngineCore")
        assert (engine.pid, mine) in set(marked())
        engine.kill()


def test_a_key_is_not_written_into_the_script_that_stays_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in script(("/bin/true",), environment(build_job(tmp_path, "succeed")))


@pytest.mark.slow
def test_ranks_meet_on_a_machine_that_cannot_look_up_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Deployment
) -> None:
    """As a laptop whose name a VPN has changed: torchrun would have its ranks ask for it until they give up."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import socket; socket.getfqdn = lambda *_: 'laptop.invalid'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    job = build_job(tmp_path, "count_ranks", processes=2)
    assert build_attempt(job, tmp_path, local).result({}).metrics["number"] == 2


def test_slurm_tells_a_job_to_save_as_long_before_the_end_as_saving_its_state_may_take(tmp_path: Path) -> None:
    order = order_of(build_job(tmp_path, "succeed", saving_s=900), tmp_path / "run", "python3")
    assert "--signal=USR1@900" in " ".join(Deployment(backend="slurm", gpus=8).launcher().shown(order))


def test_a_node_is_asked_for_the_cores_of_all_processes(tmp_path: Path) -> None:
    job = build_job(tmp_path, "succeed", gpus=8, processes=8, threads=4, minutes=30)
    order = order_of(job, tmp_path / "run", "python3")
    assert (order.gpus, order.cpus, order.minutes, order.name) == (8, 32, 30, "notes-succeed")
    assert order_of(build_job(tmp_path, "succeed", threads=4), tmp_path / "run", "python3").cpus == 4
