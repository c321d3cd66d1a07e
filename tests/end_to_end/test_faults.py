"""What a user can press and what a node can lose, under a real `dagster dev`: every run ends right, nothing is left.

The same faults at the level of the launcher, for both back ends: tests/resources/launcher.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.run import prepare_instance
from resources.home import Home
from resources.sources import PROJECT
from resources.store import Store
from tests.end_to_end.dev import ENDED, Dev, LaunchedRun, kill, open_dev, processes_of, wait_for
from tests.installation import TINY, Installation, build_installation
from tests.resources.launcher.slurm_cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROMISED_S = 10
"""Within so many seconds of Terminate no process of the job may be left (issue: launcher)."""

TRAINING = """extends: tiny
lora: {{seed: {seed}, epochs: {epochs}}}
neurons: {{shard_rows: 2048}}
compute: {{processes: {processes}, checkpoint_steps: 2}}
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("faults")
    found = build_installation(folder, [PROJECT / "experiments" / "mini.yaml", TINY])
    for name, seed, epochs, processes in (
        ("endless", 1, 1000, 2),
        ("in-slurm", 2, 1000, 1),
        ("short", 3, 1, 1),
        ("middling", 4, 3, 1),
    ):
        text = TRAINING.format(seed=seed, epochs=epochs, processes=processes)
        (found.experiments / f"{name}.yaml").write_text(text)
    assert found.run("run", "tiny", "s1k_dataset").returncode == 0
    return found


@pytest.fixture(scope="module")
def compute_yaml(installation: Installation) -> Path:
    """The deployment; runs read it anew."""
    path = installation.home.parent / "compute.yaml"
    path.write_text("backend: local\n")
    return path


@pytest.fixture(scope="module")
def dev(installation: Installation, compute_yaml: Path) -> Iterator[Dev]:
    with open_dev(installation, {"LORASCOPE_COMPUTE": str(compute_yaml)}) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left(dev: Dev) -> Iterator[None]:
    yield
    dev.end_all()


@pytest.fixture
def on_slurm(compute_yaml: Path, slurm: Cluster) -> Iterator[Cluster]:
    # `dagster dev` was started without SLURM_CONF, so the commands are given it by their prefix.
    compute_yaml.write_text(f"backend: slurm\nprefix: [/usr/bin/env, SLURM_CONF={slurm.conf}, /bin/sh, -c]\n")
    yield slurm
    compute_yaml.write_text("backend: local\n")


def whole_or_absent(run: LaunchedRun) -> bool:
    """The store holds the artifact whole, or does not have it."""
    return not run.artifact.exists() or not list(Store(run.home / "store").damage(run.asset, run.key))


def end(run: LaunchedRun) -> None:
    """Terminate, and see that the promise is kept."""
    run.terminate()
    run.wait_for(lambda: not run.processes(), PROMISED_S)
    assert run.becomes(*ENDED) == "CANCELED"


def checkpoint(run: LaunchedRun) -> Path:
    """The first checkpoint of its training, once it is there."""
    folder = run.home / "store" / ".partial" / run.asset / run.key / "scratch" / "checkpoints"
    return wait_for(lambda: next(folder.glob("step-????????"), None))  # pyright: ignore[reportReturnType]


def test_a_run_terminated_while_its_job_starts_leaves_no_process(dev: Dev) -> None:
    run = dev.launch("endless")
    wait_for(run.folder.handle)
    end(run)
    assert not run.folder.messages.exists(), "the worker was still importing"
    assert not run.artifact.exists()


def test_a_run_terminated_as_soon_as_it_has_started_leaves_no_process(dev: Dev) -> None:
    run = dev.launch("endless")
    run.becomes("STARTED")
    end(run)
    assert not run.artifact.exists()


def test_a_killed_run_worker_leaves_no_process_and_the_next_run_goes_on_from_the_checkpoint(dev: Dev) -> None:
    run = dev.launch("endless")
    checkpoint(run)
    assert len(run.processes()) >= 4  # keeper, torchrun, two ranks
    kill(run.worker)
    run.wait_for(lambda: not run.processes(), PROMISED_S)
    assert run.becomes("FAILURE", "SUCCESS", "CANCELED") == "FAILURE"
    again = dev.launch("endless")
    assert int(again.says("going on after step").split()[4]) >= 2
    end(again)
    assert not again.artifact.exists()


def test_a_run_terminated_while_it_waits_for_anothers_job_leaves_that_one_alone(dev: Dev) -> None:
    run = dev.launch("endless")
    run.says("train ")
    waiting = dev.launch("endless")
    waiting.says("waiting for it")
    waiting.terminate()
    assert waiting.becomes(*ENDED) == "CANCELED"
    assert run.processes()
    end(run)


def test_terminate_ends_a_run_that_no_signal_reaches_while_it_waits_and_while_it_computes(dev: Dev) -> None:
    """Dagster has no way to signal a `lorascope run`; and a signal to a run of its own can be lost."""
    with dev.started("endless") as run:
        run.says("train ")
        with dev.started("endless") as waiting:
            waiting.says("waiting for it")
            waiting.press_terminate()
            waiting.wait_for(lambda: waiting.status == "CANCELED", PROMISED_S)
        assert run.processes()
        run.press_terminate()
        run.wait_for(lambda: not run.processes(), PROMISED_S)
        assert run.becomes(*ENDED) == "CANCELED"


def test_what_every_rank_writes_is_in_the_runs_compute_logs_and_what_the_first_says_in_its_log(dev: Dev) -> None:
    run = dev.launch("endless", "neuron_shards")
    assert run.becomes("CANCELED", "SUCCESS", "FAILURE") == "SUCCESS"
    run.says("tokens captured")
    assert "[rank 1] tokens captured" in run.output["stderr"]


def test_a_run_terminated_while_it_finishes_leaves_a_whole_artifact_or_none(dev: Dev) -> None:
    run = dev.launch("short")
    wait_for(lambda: run.folder.messages.exists() and "train 4/4" in run.folder.messages.read_text())
    run.terminate()
    run.wait_for(lambda: not run.processes(), PROMISED_S)
    assert run.becomes("CANCELED", "SUCCESS", "FAILURE") != "FAILURE"
    assert whole_or_absent(run)


def test_a_slurm_job_outlives_its_killed_run_and_the_next_run_attaches_and_ends_it(dev: Dev, on_slurm: Cluster) -> None:
    run = dev.launch("in-slurm")
    run.says("train ")
    handle = run.folder.handle()
    kill(run.worker)
    assert run.becomes("FAILURE", "SUCCESS", "CANCELED") == "FAILURE"
    assert run.processes()
    again = dev.launch("in-slurm")
    again.says(f"attached to job {handle}, which was still there")
    again.says("train ")
    end(again)
    assert in_queue() == []


def in_queue() -> list[str]:
    done = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_run_terminated_while_slurm_queues_its_job_takes_it_out_of_the_queue(dev: Dev, on_slurm: Cluster) -> None:
    node = subprocess.run(["sinfo", "-h", "-o", "%N"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"], check=True)
    try:
        run = dev.launch("endless")
        run.says("pending (")
        assert len(in_queue()) == 1
        end(run)
        assert in_queue() == []
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=True)


def test_a_killed_daemon_takes_no_run_with_it(dev: Dev) -> None:
    """Last of the file: `dagster dev` ends with its daemon, and what runs goes on to its end without either."""
    run = dev.launch("middling")
    run.says("train ")
    assert run.status == "STARTED"
    dev.launched.clear()  # nobody can be asked to end it any more
    kill(dev.daemon)
    home = Home(dev.installation.home, dev.installation.experiments)
    with dg.DagsterInstance.from_config(str(prepare_instance(home))) as instance:

        def status() -> dg.DagsterRunStatus:
            found = instance.get_run_by_id(run.run_id)
            assert found is not None
            return found.status

        wait_for(lambda: status() not in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING))
        assert status() == dg.DagsterRunStatus.SUCCESS
    assert run.artifact.exists() and whole_or_absent(run)
    wait_for(lambda: not processes_of(dev.installation))
