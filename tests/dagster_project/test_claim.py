"""A run goes on as it was planned, whatever happens to its files meanwhile, and gc takes nothing from it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dagster_project.claim import claimed, folders_file, other_folders, unchanging
from dagster_project.compute_asset import obtain
from dagster_project.experiment import Experiments
from dagster_project.plan import keys, run_folder
from dagster_project.rooms import STAGES
from dagster_project.upkeep import collect_garbage
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job, JobResult
from resources.store import Store
from tests.dagster_project.edits import EDITS, fake_run, load

BASE, OTHER = dict.fromkeys(EDITS, 0), dict.fromkeys(EDITS, 1)
"""Two experiments that share no artifact."""
CLAIM_AND_WAIT = """
import sys, time
from pathlib import Path
from dagster_project.claim import claimed
from resources.home import Home
with claimed(Home(Path(sys.argv[1]), Path(sys.argv[2])), "e", "dead-run", print):
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", tmp_path / "experiments")
    home.experiments.mkdir()
    return home


def gc(home: Home, *, dry_run: bool = False) -> set[str]:
    """Assets whose artifacts gc removed."""
    said: list[str] = []
    removed = collect_garbage(home, Experiments(home.experiments), dry_run=dry_run, say=said.append)
    return {item.path.parent.name for item in removed if item.reason == "no experiment reaches it"}


def test_gc_leaves_what_a_run_may_use_also_when_its_experiment_file_is_gone(home: Home) -> None:
    load(home.experiments, BASE)
    load(home.experiments, OTHER, "other")
    first, store, launched = STAGES[:3], Store(home.store), []
    with claimed(home, "e", "run-1", launched.append) as claim:
        for stage in first:
            obtain(stage, claim, store, home, launched.append, fake_run(launched))
        assert not claim.is_edited()
        (home.experiments / "e.yaml").unlink()
        assert claim.is_edited()
        assert gc(home, dry_run=True) == set()
        assert gc(home) == set()
        for stage in STAGES:
            obtain(stage, claim, store, home, launched.append, fake_run(launched))
    assert launched == [stage.asset for stage in STAGES]
    assert gc(home, dry_run=True) == gc(home) == {stage.asset for stage in STAGES}
    assert list((home.store / ".claims").iterdir()) == []


def test_a_run_works_on_an_experiment_in_one_process_and_notes_its_folder_once(home: Home) -> None:
    load(home.experiments, BASE)
    with (
        claimed(home, "e", "run-1", print),
        pytest.raises(BadInput, match=r"^run run-1 already computes 'e' in another process$"),
        claimed(home, "e", "run-1", print),
    ):
        pass
    with claimed(home, "e", "run-1", print), claimed(home, "e", "run-2", print):
        pass
    assert folders_file(home).read_text() == f"{home.experiments}\n"


def test_a_damaged_note_of_folders_stops_no_run_and_counts_as_a_folder_that_gc_does_not_know(home: Home) -> None:
    load(home.experiments, BASE)
    folders_file(home).parent.mkdir(parents=True, exist_ok=True)
    folders_file(home).write_bytes(b"/mnt/a\xff\n")
    with claimed(home, "e", "run", print):
        assert folders_file(home).read_bytes() == b"/mnt/a\xff\n" + f"{home.experiments}\n".encode()
    assert other_folders(home) == ["/mnt/a\udcff"]


def test_a_killed_run_keeps_nothing_from_gc(home: Home) -> None:
    load(home.experiments, BASE)
    load(home.experiments, OTHER, "other")
    command = [sys.executable, "-c", CLAIM_AND_WAIT, str(home.root), str(home.experiments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "claimed\n"
        with claimed(home, "e", "run-2", print) as claim:
            obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([]))
        (home.experiments / "e.yaml").unlink()
        assert gc(home) == set()
        process.kill()
    assert gc(home) == {STAGES[0].asset}


def test_a_run_that_begins_while_gc_is_at_work_waits_for_it_and_says_so(home: Home) -> None:
    load(home.experiments, BASE)
    told = threading.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        told.set()

    def begin() -> None:
        with claimed(home, "e", "run-3", say):
            said.append("begun")

    with unchanging(home, "gc", print):
        run = threading.Thread(target=begin)
        run.start()
        assert told.wait(30)
    run.join(30)
    assert said[0].startswith("the store is held by gc (process ") and said[0].endswith("; waiting")
    assert said[1:] == ["begun"]


def test_an_edit_of_the_experiment_changes_nothing_in_a_run_that_has_begun(home: Home) -> None:
    planned = keys(load(home.experiments, BASE))
    launched: list[str] = []
    with claimed(home, "e", "run-4", launched.append) as claim:
        for stage in STAGES:
            if stage.asset == "batchtopk_sae":
                load(home.experiments, {**BASE, "lora": 1, "sae": 1})
                assert claim.is_edited()
            done = obtain(stage, claim, Store(home.store), home, launched.append, fake_run(launched))
            assert done.manifest.key == planned[stage.asset]
    assert launched == list(planned)


@pytest.fixture
def sourced(home: Home, tmp_path: Path) -> Path:
    """The experiment `e` reads its dataset from this folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.json").write_text("1")
    (home.experiments / "e.yaml").write_text(f"dataset:\n  source: {folder}\n")
    return folder


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_a_folder_that_changes_while_a_job_reads_it_leaves_no_artifact_and_one_clear_sentence(
    home: Home, sourced: Path, fails: bool
) -> None:
    work = fake_run([])

    def edited_meanwhile(job: Job, folder: Path) -> JobResult:
        (sourced / "train.json").write_text("2")
        (job.scratch / "checkpoint").write_text("step 1")
        done = work(job, folder)
        if fails:
            raise RuntimeError("half of the file was old")
        return done

    with claimed(home, "e", "run-5", print) as claim:
        with pytest.raises(BadInput) as caught:
            obtain(STAGES[0], claim, Store(home.store), home, print, edited_meanwhile)
        key = claim.keys[STAGES[0].asset]
    assert str(caught.value) == (
        f"{sourced} (section 'dataset') changed while this run of 'e' was going on: what is finished stays, "
        "and `lorascope run e` goes on with what is there now"
    )
    assert list(Store(home.store).artifacts()) == []
    assert not run_folder(home.runs, STAGES[0].asset, key).exists()
    assert list((home.store / ".partial").rglob("checkpoint")) == []
    (sourced / "train.json").write_text("1")
    with claimed(home, "e", "run-6", print) as claim:
        done = obtain(STAGES[0], claim, Store(home.store), home, print, work)
    assert (done.cache, done.manifest.key) == ("computed", key)


def test_a_folder_that_changed_since_the_run_began_is_read_by_no_job_and_the_next_run_takes_what_is_there(
    home: Home, sourced: Path
) -> None:
    launched: list[str] = []
    with claimed(home, "e", "run-7", print) as claim:
        (sourced / "train.json").write_text("2")
        with pytest.raises(BadInput, match="changed while this run of 'e' was going on"):
            obtain(STAGES[0], claim, Store(home.store), home, print, fake_run(launched))
    assert launched == []
    with claimed(home, "e", "run-8", print) as again:
        assert obtain(STAGES[0], again, Store(home.store), home, print, fake_run(launched)).cache == "computed"
    assert again.keys[STAGES[0].asset] != claim.keys[STAGES[0].asset]


def test_a_folder_rewritten_with_the_same_content_stops_no_run(home: Home, sourced: Path) -> None:
    with claimed(home, "e", "run-9", print) as claim:
        (sourced / "train.json").write_text("1")
        assert obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([])).cache == "computed"
