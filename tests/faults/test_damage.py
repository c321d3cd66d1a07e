"""Every file of a real store, harmed in every way: named, set aside, computed anew, and never read."""

import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_project.plan import History, plan
from dagster_project.rooms import STAGES
from dagster_project.run import prepare_instance
from dagster_project.upkeep import verify_store
from resources.home import Home
from resources.manifest import FILE_NAME
from resources.sources import PROJECT
from resources.store import Store
from tests.faults.damage import HARMS, Harm, empty, flip, overwrite, truncate
from tests.faults.killing import EXPERIMENT, branch
from tests.installation import Installation, build_installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SEED = 12


@pytest.fixture(scope="module")
def keys(tiny: Installation) -> dict[str, str]:
    return {asset: line["key"] for asset, line in tiny.plan(EXPERIMENT).items()}


def cases(folder: Path) -> Iterator[tuple[Path, Harm]]:
    """Every file of an artifact with every harm that changes it."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        yield from ((path, harm) for harm in HARMS if size or harm not in (empty, flip, truncate))


@pytest.mark.parametrize("asset", [stage.asset for stage in STAGES])
def test_verify_names_every_harmed_file_and_nothing_finds_its_artifact(
    tiny: Installation, keys: dict[str, str], tmp_path: Path, asset: str
) -> None:
    """Over 900 cases for the tiny store; the seed of each is its number."""
    key, store = keys[asset], Store(tmp_path / "store")
    original = tiny.home / "store" / asset / key
    for number, (path, harm) in enumerate(cases(original)):
        name, folder = path.relative_to(original).as_posix(), store.folder(asset, key)
        shutil.copytree(original, folder, copy_function=os.link)
        harm(folder / name, random.Random(number))
        said: list[str] = []
        damage = verify_store(store, said.append)
        assert [item.file for item in damage] == [name], (number, harm.__name__)
        assert said[0].startswith(f"{asset}/{key}/{name}: ") and said[0].endswith("run again to compute it anew)")
        assert not folder.exists()
        [aside] = (store.root / ".damaged").iterdir()
        aside.rename(folder)
        assert store.find(asset, key) is None
        shutil.rmtree(store.root)


@pytest.mark.parametrize("harm", HARMS)
def test_harmed_notes_about_earlier_runs_change_no_plan(
    tiny: Installation, keys: dict[str, str], tmp_path: Path, harm: Harm
) -> None:
    """`.history` says what a change is told against; without it the plan knows less, and is as right."""
    from dagster_project.experiment import Experiments

    experiment = Experiments(tiny.experiments).load(EXPERIMENT)
    for number, asset in enumerate(keys):
        store = Store(tmp_path / "store")
        shutil.copytree(tiny.home / "store" / ".history", store.root / ".history", dirs_exist_ok=True)
        harm(store.root / ".history" / EXPERIMENT / asset, random.Random(number))
        assert {line.asset: line.key for line in plan(experiment, store)} == keys
        History(store).record(EXPERIMENT, asset, keys[asset])
        assert History(store).last(EXPERIMENT, asset) == keys[asset]


def harm_one(installation: Installation, asset: str, name: str, harm: Harm) -> str:
    """Harm one file of an artifact; `asset/key/name`."""
    [folder] = (installation.home / "store" / asset).iterdir()
    harm(folder / name, random.Random(SEED))
    return f"{asset}/{folder.name}/{name}"


def test_the_command_line_names_the_file_and_the_next_run_computes_that_asset_and_no_other(
    tiny: Installation, tmp_path: Path
) -> None:
    damaged = branch(tiny, tmp_path, [])
    named = harm_one(damaged, "s1k_dataset", "rollouts.parquet", flip)
    other = harm_one(damaged, "batchtopk_sae", FILE_NAME, truncate)
    done = damaged.run("verify")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{named}: content differs from its SHA-256 (set aside; run again to compute it anew)" in done.stdout
    assert f"{other}: unreadable (set aside; run again to compute it anew)" in done.stdout
    assert done.stdout.endswith(f"{len(STAGES)} artifacts checked, 2 damaged files\n")
    lines = damaged.plan(EXPERIMENT)
    assert {asset for asset, line in lines.items() if line["cache"] == "miss"} == {"s1k_dataset", "batchtopk_sae"}
    outcome = damaged.json("run", EXPERIMENT, "s1k_dataset", "lora_checkpoint")
    assert outcome == {"experiment": EXPERIMENT, "success": True, "s1k_dataset": "computed", "lora_checkpoint": "hit"}
    again = (damaged.home / "store" / named).read_bytes()
    assert again == (tiny.home / "store" / named).read_bytes()


def test_a_run_whose_input_is_damaged_says_in_one_sentence_what_to_do(tiny: Installation, tmp_path: Path) -> None:
    damaged = branch(tiny, tmp_path, ["batchtopk_sae"])
    named = harm_one(damaged, "activation_shards", "shard-00000.parquet", flip)
    done = damaged.run("run", EXPERIMENT, "batchtopk_sae")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr and "Stack Trace" not in done.stdout + done.stderr
    assert (
        f"batchtopk_sae failed: {named}: content differs from its SHA-256; "
        "it was set aside, run again to compute it anew" in done.stdout
    )
    shown = damaged.run("show", EXPERIMENT, "activation_shards")
    assert shown.returncode == 2
    assert shown.stderr == (
        f"lorascope: activation_shards of '{EXPERIMENT}' is not computed yet: run `lorascope run {EXPERIMENT}` first\n"
    )


@pytest.mark.parametrize("name", ["runs.db", "runs/index.db"])
@pytest.mark.parametrize("harm", [truncate, overwrite])
def test_a_damaged_database_of_dagster_is_one_sentence_and_moving_it_away_loses_no_artifact(
    tmp_path: Path, harm: Harm, name: str
) -> None:
    installation = build_installation(tmp_path, [PROJECT / "experiments" / "mini.yaml"])
    home = Home(installation.home, installation.experiments)
    prepare_instance(home)
    harm(home.dagster / "history" / name, random.Random(SEED))
    for command in (["run", "mini", "s1k_dataset"], ["gc"]):
        done = installation.run(*command)
        assert done.returncode == 2
        assert re.fullmatch(
            rf"lorascope: a database of Dagster in {home.dagster} is damaged \(.*\): move that folder away and run "
            "the same command again; Dagster begins a new history of runs, and what is finished stays in the store\n",
            done.stderr,
        ), done.stderr
    home.dagster.rename(tmp_path / "away")
    prepare_instance(home)
