"""What a job is asked and may read, and what a killed run left behind: the next one puts it away."""

from pathlib import Path

import pytest

from dagster_project.claim import claimed
from dagster_project.compute_asset import job_of, obtain
from dagster_project.experiment import Experiments
from dagster_project.plan import finished_run_folder, keys, run_folder
from dagster_project.rooms import STAGES, stage
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment
from resources.lock import sign, try_hold
from resources.memory import GIB
from resources.store import Store
from tests.dagster_project.edits import EDITS, fake_run, load


def build_killed_after_storing(tmp_path: Path) -> tuple[Home, str, Path, Path]:
    """A store with one artifact, whose run was killed before it put scratch and log away."""
    home = Home(tmp_path / "home", tmp_path)
    load(tmp_path, dict.fromkeys(EDITS, 0))
    with claimed(home, "e", "first", print) as claim:
        key = obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([])).manifest.key
    partial, log = Store(home.store).partial(STAGES[0].asset, key), run_folder(home.runs, STAGES[0].asset, key)
    (partial / "scratch").mkdir(parents=True)
    finished_run_folder(home.runs, log.name).rename(log)
    (log / "stdout.log").write_text("what was said")
    (home.store / ".claims").mkdir(exist_ok=True)
    (home.store / ".claims" / "killed-e").write_text("{}")
    return home, key, partial, log


@pytest.mark.parametrize("left", ["scratch and log", "scratch", "log"])
def test_a_hit_puts_away_what_a_run_killed_after_storing_left(tmp_path: Path, left: str) -> None:
    home, _, partial, log = build_killed_after_storing(tmp_path)
    if left == "scratch":
        log.rename(finished_run_folder(home.runs, log.name))
    if left == "log":
        (partial / "scratch").rmdir()
        partial.rmdir()
    with claimed(home, "e", "second", print) as claim:
        assert obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([])).cache == "hit"
    assert not partial.exists() and not log.exists()
    assert (finished_run_folder(home.runs, log.name) / "stdout.log").read_text() == "what was said"
    assert list((home.store / ".claims").iterdir()) == []


def test_a_hit_leaves_the_work_of_a_run_that_is_alive_alone(tmp_path: Path) -> None:
    home, key, partial, log = build_killed_after_storing(tmp_path)
    lock = try_hold(home.store / ".locks" / f"{STAGES[0].asset}-{key}")
    assert lock is not None
    with lock, claimed(home, "e", "second", print) as claim:
        assert obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([])).cache == "hit"
    assert partial.exists() and log.exists()


def test_who_waited_for_another_run_takes_what_that_one_computed(tmp_path: Path) -> None:
    home, asset = Home(tmp_path / "home", tmp_path), STAGES[0].asset
    load(tmp_path, dict.fromkeys(EDITS, 0))
    store, launched, told = Store(home.store), [], []
    with claimed(home, "e", "first", print) as claim:
        key = obtain(STAGES[0], claim, store, home, print, fake_run([])).manifest.key
        store.folder(asset, key).rename(tmp_path / "still being computed")
        lock = try_hold(home.store / ".locks" / f"{asset}-{key}")
        assert lock is not None
        sign(lock, "other")

        def computed_meanwhile(text: str) -> None:
            told.append(text.partition(" (")[0])
            (tmp_path / "still being computed").rename(store.folder(asset, key))
            lock.close()

        assert obtain(STAGES[0], claim, store, home, computed_meanwhile, fake_run(launched)).cache == "hit"
    assert (told, launched) == ([f"{asset} is being computed by other"], [])


def test_a_job_never_begins_on_an_input_that_was_damaged_after_it_was_stored(tmp_path: Path) -> None:
    home, lora = Home(tmp_path / "home", tmp_path), stage("lora_checkpoint")
    load(tmp_path, dict.fromkeys(EDITS, 0))
    store, launched = Store(home.store), []
    with claimed(home, "e", "run", print) as claim:
        [source] = lora.inputs
        data = obtain(stage(source), claim, store, home, print, fake_run([])).folder / "data"
        data.chmod(0o644)
        data.write_text("x" * data.stat().st_size)
        with pytest.raises(BadInput, match=rf"{source}/.*/data: content differs.*; it was set aside, run again"):
            obtain(lora, claim, store, home, print, fake_run(launched))
    assert launched == []


def test_what_a_job_says_of_its_failure_is_what_the_run_says(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    load(tmp_path, dict.fromkeys(EDITS, 0))

    def fail(job: Job, folder: Path) -> JobResult:
        raise BadInput(f"{job.asset} needs a token: set HF_TOKEN")

    with claimed(home, "e", "run", print) as claim, pytest.raises(BadInput, match="dataset needs a token: set HF_"):
        obtain(STAGES[0], claim, Store(home.store), home, print, fail)


def test_a_job_asks_for_what_its_stage_needs_and_the_node_has(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text("description: the paper\n")
    paper = Experiments(tmp_path).load("paper")
    node = Deployment(gpus=4, gpu_memory_gib=80, cpus=32)
    capture = stage("neuron_shards")
    job = job_of(capture, paper, keys(paper), Store(tmp_path), node)
    assert (job.gpus, job.processes, job.threads, job.minutes) == (4, 4, 8, 120)
    # Of 32.8 B parameters in two bytes each.
    assert job.memory is not None and max(part.bytes for part in job.memory.parts) / GIB == pytest.approx(61, abs=0.1)


def test_an_artifact_that_is_computed_anew_knows_its_cost_and_has_one_log(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    load(tmp_path, dict.fromkeys(EDITS, 0))
    store = Store(home.store)
    with claimed(home, "e", "run", print) as claim:
        first = obtain(STAGES[0], claim, store, home, print, fake_run([]))
        log = finished_run_folder(home.runs, run_folder(home.runs, STAGES[0].asset, first.manifest.key).name)
        (log / "of the first").touch()
        store.set_aside(STAGES[0].asset, first.manifest.key)
        again = obtain(STAGES[0], claim, store, home, print, fake_run([]))
    assert (again.cache, again.manifest.cost_usd) == ("computed", 0.25)
    assert list(log.iterdir()) == []
