"""Dagster runs exactly what the plan said, and an edit during a run shows as Unsynced after it, not as confusion."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import dagster_project.materialize
from assets.paper.claims import CLAIMS, Measurement
from assets.paper.report import claim_rows
from dagster_project.definitions import defs
from dagster_project.materialize import _stages_of
from dagster_project.plan import keys, plan
from dagster_project.rooms import STAGES
from resources.home import Home
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment
from resources.store import Store
from tests.dagster_project.edits import CHOICES, EDITS, METRICS, fake_run, load
from tests.sensors.ticks import tick, unsynced

BASE = dict.fromkeys(EDITS, 0)
ASSETS = tuple(stage.asset for stage in STAGES)
CHAIN = ("s1k_dataset", "lora_checkpoint", "activation_shards", "batchtopk_sae")
Meanwhile = dict[str, Callable[[], None]]


def test_each_asset_of_the_ui_is_described_in_whole_sentences_and_a_section_named_once() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        said = graph.get(key).description or ""
        assert said.endswith("."), key
        if key.path[0] == "params":
            assert said.count(f"`{key.path[-1]}`") == 1, said


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(tmp_path / "experiments"))
    (tmp_path / "experiments").mkdir()
    return Home(tmp_path / "home", tmp_path / "experiments")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def run(
    instance: dg.DagsterInstance,
    home: Home,
    launched: list[str],
    meanwhile: Meanwhile | None = None,
    names: tuple[str, ...] = ASSETS,
) -> dg.ExecuteInProcessResult:
    """Run assets of experiment `e` through Dagster, only the workers are played.

    `meanwhile`: asset -> what happens while its worker is at work.
    """
    play = fake_run(launched)

    def launch(_context: dg.AssetExecutionContext, job: Job, run_dir: Path, _node: Deployment) -> JobResult:
        (meanwhile or {}).get(job.asset, lambda: None)()
        return play(job, run_dir)

    assets = [a for a in defs.assets or () if isinstance(a, dg.AssetsDefinition) and a.key.path[-1] in names]
    instance.add_dynamic_partitions("experiment", ["e"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dagster_project.materialize, "launch", launch)
        return dg.materialize(
            assets, instance=instance, partition_key="e", resources={**(defs.resources or {}), "home": home}
        )


def materialize(
    instance: dg.DagsterInstance,
    home: Home,
    launched: list[str],
    meanwhile: Meanwhile | None = None,
    names: tuple[str, ...] = ASSETS,
) -> dict[str, tuple[str, str]]:
    """What a run came to: asset -> (cache, data version)."""
    done = run(instance, home, launched, meanwhile, names)
    found: dict[str, tuple[str, str]] = {}
    for event in done.get_asset_materialization_events():
        made = event.step_materialization_data.materialization
        tags = made.tags or {}
        found[made.asset_key.path[-1]] = (str(made.metadata["cache"].value), tags["dagster/data_version"])
    return found


@pytest.mark.slow
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(st.lists(CHOICES, min_size=2, max_size=2))
def test_what_dagster_reports_is_what_the_plan_said_under_any_sequence_of_edits(
    tmp_path_factory: pytest.TempPathFactory, choices: list[dict[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("dagster")
    home = Home(folder / "home", folder)
    with dg.DagsterInstance.ephemeral() as instance:
        for choice in choices:
            said = {line.asset: line for line in plan(load(folder, choice), Store(home.store))}
            launched: list[str] = []
            done = materialize(instance, home, launched)
            assert {asset: version for asset, (_, version) in done.items()} == {a: said[a].key for a in said}
            assert {asset for asset, (cache, _) in done.items() if cache == "hit"} == {
                asset for asset in said if said[asset].cache == "hit"
            }
            assert set(launched) == {asset for asset in said if said[asset].cache == "miss"}


def test_an_edit_during_a_run_changes_nothing_in_it_shows_as_unsynced_and_is_computed_by_the_next_run(
    home: Home, instance: dg.DagsterInstance
) -> None:
    planned = keys(load(home.experiments, BASE))
    tick(instance, None)

    def edit() -> None:
        load(home.experiments, {**BASE, "sae": 1})
        tick(instance, None)

    launched: list[str] = []
    first = materialize(instance, home, launched, {"activation_shards": edit}, CHAIN)
    assert {asset: version for asset, (_, version) in first.items()} == {asset: planned[asset] for asset in CHAIN}
    assert unsynced(instance, "e", CHAIN) == {"batchtopk_sae": [["params", "sae"]]}
    launched.clear()
    materialize(instance, home, launched, names=CHAIN)
    assert launched == ["batchtopk_sae"]
    assert unsynced(instance, "e", CHAIN) == {}


def test_a_run_that_cannot_end_well_starts_nothing_wherever_it_was_launched_from(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    load(home.experiments, {})
    with (home.experiments / "e.yaml").open("a") as file:
        file.write("lora: {rank: 2}\ninterpretations: {provider: openai, model: m}\n")
    launched: list[str] = []
    sentences = (
        r"e cannot be computed:\n- activation_shards reads one scalar.*\n- interpretations asks paid models: set"
    )
    with pytest.raises(dg.Failure, match=sentences):
        run(instance, home, launched)
    assert launched == []
    # what has nothing to do with either is computed
    run(instance, home, launched, names=CHAIN[:2])
    assert launched == ["s1k_dataset", "lora_checkpoint"]


def test_the_reports_claims_are_shown_with_their_numbers_in_one_unit_and_kept_as_they_were_measured(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(home.experiments, BASE)
    measured = {claim.id: None for claim in CLAIMS} | {"adapter_share": Measurement(0.0111, None, None, "a")}
    claims = [*claim_rows(measured, comparable=True)]
    monkeypatch.setitem(METRICS, "paper_report", {"claims": claims})
    done = run(instance, home, [])
    (made,) = done.asset_materializations_for_node("paper_report")
    shown = made.metadata["claims"]
    assert isinstance(shown, dg.TableMetadataValue)
    first = shown.records[0].data
    assert [first[name] for name in ("id", "verdict", "expected", "measured")] == [
        "adapter_share",
        "differs",
        "0.0256 %",
        "1.11 %",
    ]
    kept = Store(home.store).peek("paper_report", keys(load(home.experiments, BASE))["paper_report"])
    assert kept is not None
    assert kept.rows("claims")[0]["measured"] == 0.0111


@pytest.mark.parametrize(
    ("job", "step", "knob"),
    [
        *(("whole_paper", stage.asset, {"k": 8}) for stage in STAGES),
        ("__ASSET_JOB", "experiment_comparison", {"experiments": ["e"]}),
        ("gc", "remove_unreachable", {"dry_run": True}),
        ("verify", "rehash_store", {"asset": "s1k_dataset"}),
    ],
)
def test_a_knob_in_the_launchpads_config_is_refused_not_ignored(job: str, step: str, knob: dict[str, object]) -> None:
    found = defs.resolve_job_def(job) if job != "__ASSET_JOB" else defs.resolve_implicit_global_asset_job_def()
    assert dg.validate_run_config(found, {})
    with pytest.raises(dg.DagsterInvalidConfigError, match=f'unexpected config entry "{next(iter(knob))}"'):
        dg.validate_run_config(found, {"ops": {step: {"config": knob}}})


def test_deleting_the_file_of_a_running_experiment_stops_nothing(home: Home, instance: dg.DagsterInstance) -> None:
    planned = keys(load(home.experiments, BASE))
    launched: list[str] = []
    done = materialize(instance, home, launched, {"lora_checkpoint": (home.experiments / "e.yaml").unlink}, CHAIN)
    assert {asset: version for asset, (_, version) in done.items()} == {asset: planned[asset] for asset in CHAIN}
    assert set(launched) == set(CHAIN)
    assert list((home.store / ".claims").iterdir()) == []


def test_an_asset_judges_its_checks_in_its_own_step_on_a_hit_too_and_of_its_own_experiment(
    home: Home, instance: dg.DagsterInstance
) -> None:
    load(home.experiments, BASE)
    for _ in ("computed", "hit"):
        done = run(instance, home, [])
        found = {(found.asset_key.path[-1], found.check_name): found for found in done.get_asset_check_evaluations()}
        assert set(found) == {
            ("benchmark_scores", "graded_and_consistent_with_the_paper"),
            ("paper_report", "claims_agree"),
        }
        assert {event.step_key for event in done.get_step_success_events()} == set(ASSETS)
        assert set(found["paper_report", "claims_agree"].metadata) == {"experiment", "claims"}
        for (asset, _), evaluation in found.items():
            target = evaluation.target_materialization_data
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=["e"])
            (made,) = instance.fetch_materializations(wanted, limit=1).records
            assert target is not None
            assert target.storage_id == made.storage_id
            assert evaluation.metadata["experiment"] == dg.TextMetadataValue("e")  # the UI shows the last of any


def test_only_the_stages_that_a_run_computes_are_checked_before_it() -> None:
    chosen = frozenset(map(dg.AssetKey, ("s1k_dataset", "batchtopk_sae")))
    whole, some = dg.DagsterRun(job_name="whole_paper"), dg.DagsterRun(job_name="whole_paper", asset_selection=chosen)
    left = dg.DagsterRun(job_name="whole_paper", asset_selection=chosen, step_keys_to_execute=["batchtopk_sae"])
    assert [[stage.asset for stage in _stages_of(run)] for run in (whole, some, left)] == [
        [stage.asset for stage in STAGES], ["s1k_dataset", "batchtopk_sae"], ["batchtopk_sae"],
    ]  # fmt: skip
