"""A clock that jumps, other time zones and a leap day change no key, no age in gc and no lock."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_project.claim import claimed
from dagster_project.compute_asset import obtain
from dagster_project.experiment import Experiments
from dagster_project.plan import keys
from dagster_project.rooms import STAGES
from dagster_project.upkeep import collect_garbage
from resources.home import Home
from resources.launcher.leases import take
from resources.launcher.protocol import Busy
from resources.lock import try_hold
from resources.sources import PROJECT
from resources.store import Store
from tests.dagster_project.edits import EDITS, fake_run, load
from tests.installation import TINY, build_installation

HOUR_S, DAY_S = 3600.0, 86400.0


def build_half_made(home: Home, key: str, age_s: float) -> Path:
    """Work on a key that was touched so many seconds ago; less than nothing: by a clock that ran ahead."""
    workspace = Store(home.store).workspace("s1k_dataset", key)
    moment = time.time() - age_s
    for path in (workspace.scratch, workspace.out, workspace.out.parent):
        os.utime(path, (moment, moment))
    return workspace.out.parent


def test_gc_takes_half_made_work_after_a_day_and_never_work_from_the_future(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    load(tmp_path, dict.fromkeys(EDITS, 0))
    old = build_half_made(home, "old", DAY_S + 60)
    kept = [build_half_made(home, name, age) for name, age in (("new", DAY_S - HOUR_S), ("ahead", -HOUR_S))]
    removed = collect_garbage(home, Experiments(tmp_path), dry_run=False, say=print)
    assert [item.path for item in removed] == [old]
    assert not old.exists() and all(path.exists() for path in kept)


def test_gc_leaves_old_looking_work_alone_while_somebody_is_at_it(tmp_path: Path) -> None:
    """The clock jumps forward by a week, or the files come from a copy that kept its times."""
    home = Home(tmp_path / "home", tmp_path)
    load(tmp_path, dict.fromkeys(EDITS, 0))
    folder = build_half_made(home, "old", 7 * DAY_S)
    lock = try_hold(home.store / ".locks" / "s1k_dataset-old")
    assert lock is not None
    with lock:
        assert collect_garbage(home, Experiments(tmp_path), dry_run=False, say=print) == []
    assert folder.exists()


def test_files_from_the_future_and_the_past_change_no_key_and_no_hit(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    experiment = load(tmp_path, dict.fromkeys(EDITS, 0))
    before = keys(experiment)
    with claimed(home, "e", "first", print) as claim:
        obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([]))
    for moment in (0.0, time.time() + HOUR_S, time.time() - HOUR_S):
        for path in [*tmp_path.glob("*.yaml"), *home.root.rglob("*")]:
            os.utime(path, (moment, moment))
        with claimed(home, "e", "again", print) as claim:
            assert obtain(STAGES[0], claim, Store(home.store), home, print, fake_run([])).cache == "hit"
        assert keys(Experiments(tmp_path).load("e")) == before


def test_a_lease_holds_whatever_the_time_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with take(tmp_path, 1, 1, "first"):
        for moment in (0.0, time.time() + DAY_S):
            os.utime(tmp_path / "gpu-0", (moment, moment))
            with pytest.raises(Busy, match="held by first"):
                take(tmp_path, 1, 1, "second")
    with take(tmp_path, 1, 1, "second") as lease:
        assert lease.devices == ("0",)


@pytest.mark.slow
def test_runs_under_a_clock_that_jumps_back_another_zone_and_a_leap_day_share_one_store(tmp_path: Path) -> None:
    """Real runs: on a leap day in one zone, an hour earlier in another, and after a summer-time change."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime (Debian: apt-get install faketime) is not installed")
    installation = build_installation(tmp_path, [PROJECT / "experiments" / "mini.yaml", TINY])
    command = [str(Path(sys.executable).with_name("lorascope")), "run", "tiny", "s1k_dataset", "--json"]
    outcomes = []
    for zone, moment in (
        ("Pacific/Auckland", "2028-02-29 23:59:50"),
        ("Pacific/Auckland", "2028-02-29 22:59:50"),
        ("America/New_York", "2028-03-12 01:59:55"),
        ("UTC", "2027-01-01 00:00:00"),
    ):
        environment = {**installation.environment, "TZ": zone}
        done = subprocess.run([faketime, moment, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        outcomes.append("computed" if '"computed"' in done.stdout else "hit")
    assert outcomes == ["computed", "hit", "hit", "hit"]
    assert "0 damaged files" in installation.run("verify").stdout
    assert "0 folders" in installation.run("gc", "--dry-run").stdout
