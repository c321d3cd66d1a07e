"""gc takes nothing on the strength of a folder that is not there, nothing that a job still needs."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import dagster as dg
import pytest

from dagster_project import upkeep
from dagster_project.definitions import defs
from dagster_project.experiment import Experiments
from dagster_project.plan import run_folder
from dagster_project.retired import remove_retired
from dagster_project.rooms import STAGES
from dagster_project.upkeep import collect_garbage
from resources.errors import BadInput
from resources.home import Home
from resources.launcher.processes import marker
from resources.launcher.rundir import RunDir
from resources.launcher.slurm import PREFIX
from resources.lock import try_hold
from resources.store import Store
from tests.dagster_project.edits import EDITS, load, run_all
from tests.installation import Installation
from tests.mounts import mount, unmount
from tests.resources.launcher.conftest import build_job

BASE = dict.fromkeys(EDITS, 0)
OLD_S = 2 * 86_400.0
EVERYTHING = "every artifact and partition would be removed"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An installation whose experiment `e` is computed."""
    home = Home(tmp_path / "home", tmp_path / "experiments")
    home.experiments.mkdir()
    run_all(load(home.experiments, BASE), home)
    return home


def lose_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def empty_folder(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


Lose = Callable[[Path], None]
LOSSES = pytest.mark.parametrize("lose", [lose_folder, empty_folder])


@LOSSES
def test_gc_refuses_when_no_experiment_is_there_although_artifacts_are(home: Home, lose: Lose) -> None:
    lose(home.experiments)
    for dry_run in (True, False):
        with pytest.raises(BadInput, match=EVERYTHING) as caught:
            collect_garbage(home, Experiments(home.experiments), dry_run=dry_run, say=print)
    assert str(home.experiments) in str(caught.value) and "LORASCOPE_EXPERIMENTS" in str(caught.value)
    assert len(list(Store(home.store).artifacts())) == len(STAGES)


@LOSSES
def test_no_partition_is_taken_when_no_experiment_is_there(home: Home, lose: Lose) -> None:
    lose(home.experiments)
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("experiment", ["e"])
        with pytest.raises(BadInput, match=EVERYTHING):
            remove_retired(instance, Experiments(home.experiments))
        assert instance.get_dynamic_partitions("experiment") == ["e"]


def test_the_command_and_the_job_of_the_ui_say_so_in_one_sentence(home: Home, tmp_path: Path) -> None:
    done = Installation(home.root, tmp_path / "mistyped").run("gc")
    assert done.returncode == 2
    assert done.stderr.startswith(f"lorascope: {tmp_path}/mistyped is no folder, so ")
    assert "Traceback" not in done.stderr
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("experiment", ["e"])
        resources = {"home": Home(home.root, tmp_path / "mistyped")}
        job = defs.resolve_job_def("gc")
        result = job.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
        assert not result.success
        assert instance.get_dynamic_partitions("experiment") == ["e"]
    assert len(list(Store(home.store).artifacts())) == len(STAGES)


def test_gc_takes_nothing_when_the_disk_of_a_source_is_not_mounted(home: Home, tmp_path: Path) -> None:
    """An empty folder is where the disk goes: hashed, it would give every artifact another key."""
    source = tmp_path / "disk"
    (source / "hub").mkdir(parents=True)
    (source / "hub" / "rows.json").write_text("{}")
    (home.experiments / "e.yaml").write_text(f"sae:\n  k: 8\ndataset:\n  source: {source}\n")
    run_all(Experiments(home.experiments).load("e"), home)
    before = list(Store(home.store).artifacts())
    (source / "hub" / "rows.json").unlink()
    with pytest.raises(BadInput, match=r"e\.yaml:4: dataset\.source: '/.*' is empty: is its disk mounted\?$"):
        taken(home)
    assert list(Store(home.store).artifacts()) == before


def test_gc_refuses_while_runs_of_another_experiments_folder_use_the_home_too(home: Home, tmp_path: Path) -> None:
    """What a colleague's files reach is not known here: their checkout may be another version, on another machine."""
    before = list(Store(home.store).artifacts())
    theirs = Home(home.root, tmp_path / "theirs")
    theirs.experiments.mkdir()
    run_all(load(theirs.experiments, {**BASE, "dataset": 1}, "theirs"), theirs)
    with pytest.raises(BadInput, match=rf"^{home.root} also holds artifacts of {tmp_path}/theirs, which .*\.folders$"):
        taken(home)
    assert len(list(Store(home.store).artifacts())) > len(before)
    noted = home.store / ".folders"
    noted.write_text("".join(line for line in noted.read_text().splitlines(True) if "theirs" not in line))
    taken(home)
    assert list(Store(home.store).artifacts()) == before


@pytest.fixture
def left(home: Home) -> tuple[Path, Path]:
    """What a run that was killed two days ago left of job 7: its run folder and the half-made artifact."""
    workspace = Store(home.store).workspace("s1k_dataset", "a1")
    run = run_folder(home.runs, "s1k_dataset", "a1")
    run.mkdir(parents=True)
    RunDir(run).keep_handle("7")
    moment = time.time() - OLD_S
    for path in (run / "handle", run, workspace.scratch, workspace.out, workspace.out.parent):
        os.utime(path, (moment, moment))
    return run, workspace.out.parent


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let jobs go to a Slurm that answers like this."""
    (folder / "login").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "login").chmod(0o755)
    (folder / "compute.yaml").write_text(f"backend: slurm\nprefix: [{folder}/login]\n")
    monkeypatch.setenv("LORASCOPE_COMPUTE", str(folder / "compute.yaml"))


def taken(home: Home) -> set[Path]:
    return {item.path for item in collect_garbage(home, Experiments(home.experiments), dry_run=False, say=print)}


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("echo 'state: PENDING BeginTime'", True),
        ("echo 'Socket timed out' >&2; exit 1", True),
        ("exit 127", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
    ],
    ids=["pending", "silent", "absent", "gone"],
)
def test_gc_leaves_the_folders_of_a_job_that_is_still_queued_however_old_they_are(
    home: Home, left: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, kept: bool
) -> None:
    answer(tmp_path, monkeypatch, script)
    assert taken(home) == (set() if kept else set(left))
    assert [folder.exists() for folder in left] == [kept, kept]


def test_gc_leaves_the_folders_of_a_queued_job_whose_number_was_never_written_down(
    home: Home, left: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (left[0] / "handle").unlink()
    os.utime(left[0], (0, 0))
    name = marker(PREFIX, left[0])
    answer(tmp_path, monkeypatch, f"case \"$1\" in *--me*) echo '7 {name}';; *) echo 'state: PENDING None';; esac")
    assert taken(home) == set()
    answer(tmp_path, monkeypatch, "echo '8 slurm:another'")
    assert taken(home) == set(left)


def test_gc_cannot_know_of_jobs_that_went_to_a_back_end_other_than_todays(
    home: Home, left: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASCOPE_COMPUTE", raising=False)
    assert taken(home) == set()


def test_gc_asks_this_machine_about_a_job_that_ran_here_although_others_are_queued(
    home: Home, left: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(tmp_path, monkeypatch, "exit 127")
    with (tmp_path / "compute.yaml").open("a") as deployment:
        deployment.write("cpu_jobs: local\n")
    run = RunDir(left[0])
    run.prepare(build_job(tmp_path, "play", gpus=0))
    run.keep_handle("1:0:local:gone")
    for path in (*left[0].iterdir(), left[0]):
        os.utime(path, (0, 0))
    assert taken(home) == set(left)


def test_gc_leaves_work_of_which_one_file_was_written_today(
    home: Home, left: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, partial = left
    answer(tmp_path, monkeypatch, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    (partial / "scratch" / "checkpoint").touch()
    os.utime(partial / "scratch", (0, 0))
    assert taken(home) == {run}
    assert (partial / "scratch" / "checkpoint").exists()


def test_a_dry_run_lists_what_gc_would_take_with_its_bytes_and_takes_nothing(home: Home) -> None:
    store, asset = Store(home.store), STAGES[0].asset
    [key] = [key for name, key in store.artifacts() if name == asset]
    whole = store.folder(asset, key)
    shutil.copytree(whole, whole.with_name("unreached"))
    (whole.with_name("unreached") / "more").write_text("12345")
    shutil.copytree(whole, whole.with_name("broken"))
    store.set_aside(asset, "broken")
    [aside] = (home.store / ".damaged").iterdir()
    log = home.runs / ".finished" / f"{asset}-forgotten"
    log.mkdir(parents=True)
    (log / "stdout.log").write_text("1234567")
    bytes_of_one = sum(file.stat().st_size for file in whole.iterdir())
    found = collect_garbage(home, Experiments(home.experiments), dry_run=True, say=print)
    assert [(item.path, item.size, item.reason) for item in found] == [
        (whole.with_name("unreached"), bytes_of_one + 5, "no experiment reaches it"),
        (aside, bytes_of_one, "damaged, set aside"),
        (log, 7, "log of an artifact that is gone"),
    ]
    assert all(item.path.is_dir() for item in found)
    assert taken(home) == {item.path for item in found}
    assert not any(item.path.exists() for item in found) and len(list(store.artifacts())) == len(STAGES)


@pytest.mark.parametrize("place", ["store/s1k_dataset/a5", "store/.partial/s1k_dataset/a5", "runs/s1k_dataset-a5"])
def test_gc_leaves_a_key_alone_that_somebody_has_locked(home: Home, place: str) -> None:
    folder = home.root / place
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    lock = try_hold(home.store / ".locks" / "s1k_dataset-a5")
    assert lock is not None
    with lock:
        assert taken(home) == set()
    assert taken(home) == {folder}
    assert not (home.store / ".locks" / "s1k_dataset-a5").exists()


def test_files_that_vanish_while_gc_looks_do_not_end_it(home: Home) -> None:
    scratch = Store(home.store).workspace("s1k_dataset", "a2").scratch
    (scratch / "leads nowhere").symlink_to(scratch / "gone")
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            (scratch / "step").mkdir()
            (scratch / "step" / "state").touch()
            shutil.rmtree(scratch / "step")

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(work)
        try:
            assert [taken(home) for _ in range(20)] == [set()] * 20
        finally:
            done.set()
        job.result()


def test_a_folder_that_somebody_still_uses_is_named_and_gc_goes_on_with_the_others(home: Home) -> None:
    """A mount is refused as the file is that NFS keeps for whoever has a removed one open."""
    folders = [Store(home.store).folder("s1k_dataset", key) for key in ("a6", "a7")]
    for folder in folders:
        folder.mkdir()
    busy = folders[0] / "busy"
    mount(busy, "-t", "tmpfs", "tmpfs")
    said: list[str] = []
    try:
        removed = collect_garbage(home, Experiments(home.experiments), dry_run=False, say=said.append)
    finally:
        unmount(busy)
    assert [item.path for item in removed] == folders[1:]
    assert said == [f"{folders[0]} is still in use (Device or resource busy): the next gc removes what is left"]
    assert taken(home) == set(folders[:1])


def test_gc_unlinks_an_artifact_that_was_moved_to_another_disk_and_counts_nothing_as_freed(
    home: Home, tmp_path: Path
) -> None:
    folder = Store(home.store).workspace("s1k_dataset", "a4").out
    (folder / "rows").write_text("a row")
    moved = folder.rename(tmp_path / "moved")
    link = Store(home.store).folder("s1k_dataset", "a4")
    link.symlink_to(moved)
    found = collect_garbage(home, Experiments(home.experiments), dry_run=False, say=print)
    assert [(item.path, item.size) for item in found] == [(link, 0)]
    assert not link.is_symlink() and (moved / "rows").exists()


def test_a_folder_that_is_gone_before_gc_gets_to_it_is_not_said_to_be_removed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home.store / ".damaged" / "s1k_dataset-a3"
    folder.mkdir(parents=True)
    hold = upkeep.try_hold

    def quicker(path: Path) -> IO[str] | None:
        shutil.rmtree(folder, ignore_errors=True)
        return hold(path)

    monkeypatch.setattr(upkeep, "try_hold", quicker)
    assert taken(home) == set()
