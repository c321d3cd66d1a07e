"""What a killed run left behind is put away by the next one, unless somebody is at it."""

from pathlib import Path

import pytest

from dagster_project.claim import claimed
from dagster_project.compute_asset import obtain
from dagster_project.plan import finished_run_folder, run_folder
from dagster_project.rooms import STAGES
from resources.home import Home
from resources.lock import sign, try_hold
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
