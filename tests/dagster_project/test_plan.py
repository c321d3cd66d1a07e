"""The plan and the run never disagree, and a change reaches exactly what depends on it."""

from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_project.claim import claimed
from dagster_project.compute_asset import obtain
from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import History, beyond_caps, keys, num_units, plan, total
from dagster_project.rooms import STAGES
from resources.errors import BadInput
from resources.home import Home
from resources.sources import PROJECT
from resources.store import Store
from tests.dagster_project.edits import CHOICES, EDITS, METRICS, fake_run, load, right_of, run_all


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CHOICES, min_size=1, max_size=4))
def test_the_run_does_what_the_plan_said_under_any_sequence_of_edits(
    tmp_path_factory: pytest.TempPathFactory, choices: list[dict[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    home = Home(folder / "home", folder)
    for choice in choices:
        experiment = load(folder, choice)
        said = {line.asset: (line.cache, line.key) for line in plan(experiment, Store(home.store))}
        done = run_all(experiment, home)
        assert {asset: cache for asset, (cache, _) in said.items()} == {
            asset: "hit" if cache == "hit" else "miss" for asset, cache in done.items()
        }
        assert {asset: key for asset, (_, key) in said.items()} == keys(experiment)
    assert set(run_all(load(folder, choices[0]), home).values()) == {"hit"}


@pytest.mark.parametrize(
    ("section", "first"),
    [("sae", "batchtopk_sae"), ("contexts", "max_activating_contexts"), ("benchmarks", "benchmark_scores")],
)
def test_a_variant_shares_everything_left_of_its_change(tmp_path: Path, section: str, first: str) -> None:
    home = Home(tmp_path / "home", tmp_path)
    base = dict.fromkeys(EDITS, 0)
    run_all(load(tmp_path, base, "base"), home)
    caches = run_all(load(tmp_path, {**base, section: 1}, "variant"), home)
    assert {asset for asset, cache in caches.items() if cache == "computed"} == right_of(first)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("lora: {projections: [q_proj, o_proj]}", "lora: {projections: [o_proj, q_proj, o_proj]}"),
        ("lora: {layers: [1, 3]}", "lora: {layers: [3, 1, 3]}"),
        ("sae: {projections: [q_proj, gate_proj]}", "sae: {projections: [gate_proj, q_proj]}"),
        ("sae: {layers: [0, 2]}", "sae: {layers: [2, 0, 0]}"),
    ],
)
def test_the_same_choice_of_layers_and_projections_has_the_same_keys_however_it_is_written(
    tmp_path: Path, text: str, other: str
) -> None:
    (tmp_path / "e.yaml").write_text(text)
    once = keys(Experiments(tmp_path).load("e"))
    (tmp_path / "e.yaml").write_text(other)
    assert keys(Experiments(tmp_path).load("e")) == once


def test_the_plan_says_why_in_the_users_words_and_what_it_took_before(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    base = dict.fromkeys(EDITS, 0)
    run_all(load(tmp_path, base), home)
    lines = {line.asset: line for line in plan(load(tmp_path, {**base, "sae": 1}), Store(home.store))}
    assert lines["lora_checkpoint"].reason == "computed for e"
    assert lines["batchtopk_sae"].reason == "sae.k 4 → 8"
    assert lines["max_activating_contexts"].reason == "input batchtopk_sae changed"
    assert (lines["batchtopk_sae"].seconds, lines["batchtopk_sae"].cost_usd) == (1.0, 0.0)


def test_a_plan_knows_no_time_of_asking_a_model_from_a_run_that_asked_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", tmp_path)
    asking = "extends: mini\ninterpretations: {provider: openai-compatible, base_url: 'http://127.0.0.1:9/v1'}\n"

    def planned(text: str) -> dict[str, float | None]:
        (tmp_path / "e.yaml").write_text(text)
        lines = plan(Experiments(tmp_path).load("e"), Store(home.store))
        return {line.asset: line.seconds for line in lines if line.asset in ("interpretations", "paper_report")}

    monkeypatch.setitem(METRICS, "interpretations", {"requests": 0, "cached": 0})
    run_all(load(tmp_path, {}), home)
    assert planned(asking) == {"interpretations": None, "paper_report": 1.0}
    said = {line.asset: line.reason for line in plan(Experiments(tmp_path).load("e"), Store(home.store))}
    assert 'interpretations.base_url "" → http://127.0.0.1:9/v1' in said["interpretations"]
    monkeypatch.setitem(METRICS, "interpretations", {"requests": 0, "cached": 8})
    run_all(Experiments(tmp_path).load("e"), home)
    assert planned(asking.replace("}", ", samples: 2}")) == {"interpretations": 1.0, "paper_report": 1.0}
    assert planned("extends: mini\ninterpretations: {seed: 1}") == {"interpretations": None, "paper_report": 1.0}


def test_a_plan_tells_another_version_of_the_code_and_another_content_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "rows.json").write_text("[{}]")
    load(tmp_path, {})
    (tmp_path / "e.yaml").write_text(f"extends: mini\ndataset:\n  source: {source}\n")
    home = Home(tmp_path / "home", tmp_path)
    run_all(Experiments(tmp_path).load("e"), home)
    (source / "rows.json").write_text("[{}, {}]")
    newer = [replace(s, code_version=s.code_version + (s.asset == "batchtopk_sae")) for s in STAGES]
    monkeypatch.setattr("dagster_project.plan.STAGES", newer)
    lines = {line.asset: line.reason for line in plan(Experiments(tmp_path).load("e"), Store(home.store))}
    assert lines["s1k_dataset"] == "content of a file that dataset names changed"
    version = next(s.code_version for s in newer if s.asset == "batchtopk_sae")
    assert lines["batchtopk_sae"].startswith(f"code version {version - 1} → {version}; input activation_shards changed")


def test_a_knob_that_another_version_of_the_code_has_or_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", tmp_path)
    with monkeypatch.context() as older:
        values = Experiment.values
        knobs = {"sae": {"smoothing": 3}, "contexts": {"margin": None}}
        older.setattr(Experiment, "values", lambda self, section: values(self, section) | knobs.get(section, {}))
        run_all(load(tmp_path, {}), home)
    lines = {line.asset: line.reason for line in plan(load(tmp_path, {}), Store(home.store))}
    assert lines["batchtopk_sae"] == "sae.smoothing 3 → absent"
    assert lines["max_activating_contexts"].startswith("contexts.margin null → absent; input")
    with monkeypatch.context() as older:
        older.setattr(
            Experiment, "values", lambda self, section: {k: v for k, v in values(self, section).items() if k != "k"}
        )
        run_all(load(tmp_path, {}), home)
    lines = {line.asset: line.reason for line in plan(load(tmp_path, {}), Store(home.store))}
    assert lines["batchtopk_sae"] == "sae.k absent → 4"


def test_the_last_line_of_a_plan_counts_hits_misses_and_what_nobody_knows(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    base = dict.fromkeys(EDITS, 0)
    fresh = total(plan(load(tmp_path, base), Store(home.store)))
    assert fresh == {"hits": 0, "misses": len(STAGES), "unknown": len(STAGES), "seconds": 0.0, "cost_usd": 0.0}
    run_all(load(tmp_path, base), home)
    misses = len(right_of("batchtopk_sae"))  # a played worker takes a second, and the mini model asks nobody
    changed = total(plan(load(tmp_path, {**base, "sae": 1}), Store(home.store)))
    assert changed == {
        "hits": len(STAGES) - misses, "misses": misses, "unknown": 0, "seconds": float(misses), "cost_usd": 0.0
    }  # fmt: skip


def test_the_papers_units_are_896_directions_7680_neurons_and_3584_latents(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text("description: defaults\n")
    assert num_units(Experiments(tmp_path).load("paper")) == {"adapter": 896, "neuron": 7680, "latent": 3584}


def test_units_are_counted_of_the_components_that_are_adapted_and_enter_the_sae(tmp_path: Path) -> None:
    text = "lora: {projections: [q_proj, down_proj], layer_stride: 2}\nsae: {projections: [q_proj]}\n"
    (tmp_path / "some.yaml").write_text(text)
    # 32 of 64 layers with 2 components each, in both polarities; 8 latents for each of the 32 that enter
    assert num_units(Experiments(tmp_path).load("some")) == {"adapter": 128, "neuron": 7680, "latent": 256}


def test_units_of_an_adapter_that_does_not_fit_the_model_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "beyond.yaml").write_text("lora: {layers: [64]}\n")
    assert num_units(Experiments(tmp_path).load("beyond")) is None


def test_paid_stages_are_priced_before_anything_was_run(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text("description: defaults\n")
    lines = {line.asset: line for line in plan(Experiments(tmp_path).load("paper"), Store(tmp_path / "store"))}
    assert (lines["interpretations"].cost_usd or 0) > 1
    assert lines["batchtopk_sae"].cost_usd == 0.0


@pytest.mark.parametrize("own", ["", "compute:\n  llm_mode: batch\n  llm_run_dollars: 60\n"])
def test_neither_the_papers_run_nor_the_one_of_the_how_to_is_planned_to_stop_at_its_caps(
    tmp_path: Path, own: str
) -> None:
    (tmp_path / "paper.yaml").write_text((PROJECT / "experiments" / "paper.yaml").read_text())
    (tmp_path / "e.yaml").write_text(f"extends: paper\n{own}")
    paper = Experiments(tmp_path).load("e")
    assert beyond_caps(plan(paper, Store(tmp_path / "store")), paper.compute) == []


def test_where_the_units_are_not_known_an_asset_costs_what_its_last_run_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, base = Home(tmp_path / "home", tmp_path), dict.fromkeys(EDITS, 0)
    run_all(load(tmp_path, base), home)
    monkeypatch.setattr("dagster_project.plan.num_units", lambda _: None)
    lines = {line.asset: line.cost_usd for line in plan(load(tmp_path, {**base, "contexts": 1}), Store(home.store))}
    assert (lines["interpretations"], lines["max_activating_contexts"]) == (0.25, 0.0)  # who asks nobody pays nothing
    lines = {line.asset: line.cost_usd for line in plan(load(tmp_path, base, "other"), Store(tmp_path / "empty"))}
    assert (lines["interpretations"], lines["max_activating_contexts"]) == (None, 0.0)


def test_a_plan_names_the_asset_that_would_stop_at_the_cap_of_a_run_and_the_purse(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("compute:\n  llm_run_dollars: 50\n  llm_purse_dollars: 100\n")
    paper = Experiments(tmp_path).load("e")
    scores, purse = beyond_caps(plan(paper, Store(tmp_path / "store")), paper.compute)
    assert scores.startswith(
        "interpretation_scores is likely to stop at compute.llm_run_dollars of 50: it would cost $"
    )
    assert purse == "together they are likely to stop at compute.llm_purse_dollars of 100"


def test_a_child_is_told_what_differs_from_its_parent(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    run_all(load(tmp_path, dict.fromkeys(EDITS, 0), "parent"), home)
    (tmp_path / "child.yaml").write_text("extends: parent\nlora:\n  schedule: linear\nsae:\n  k: 12\n")
    lines = {line.asset: line for line in plan(Experiments(tmp_path).load("child"), Store(home.store))}
    assert lines["lora_checkpoint"].reason == "lora.schedule cosine → linear"
    assert lines["batchtopk_sae"].reason.startswith("sae.k 4 → 12; input activation_shards changed")


def test_a_damaged_note_of_the_last_key_is_no_key(tmp_path: Path) -> None:
    home, base = Home(tmp_path / "home", tmp_path), dict.fromkeys(EDITS, 0)
    run_all(load(tmp_path, base), home)
    (home.store / ".history" / "e" / "s1k_dataset").write_bytes(b"\xff\xfe")
    lines = {line.asset: line.reason for line in plan(load(tmp_path, {**base, "dataset": 1}), Store(home.store))}
    assert lines["s1k_dataset"] == "never computed"


def test_an_asset_whose_input_is_missing_says_what_to_do_and_launches_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    experiment = load(tmp_path, dict.fromkeys(EDITS, 0))
    sae = next(stage for stage in STAGES if stage.asset == "batchtopk_sae")
    launched: list[str] = []
    with (
        claimed(home, experiment.name, "run", launched.append) as claim,
        pytest.raises(BadInput, match=r"activation_shards.* of 'e' is not in the store: materialise it first"),
    ):
        obtain(sae, claim, Store(home.store), home, launched.append, fake_run(launched))
    assert launched == []


def test_a_damaged_artifact_is_computed_again_and_what_is_right_of_it_stays(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    experiment = load(tmp_path, dict.fromkeys(EDITS, 0))
    run_all(experiment, home)
    data = Store(home.store).folder("batchtopk_sae", keys(experiment)["batchtopk_sae"]) / "data"
    data.chmod(0o644)
    data.write_text("x" * len(data.read_text()))
    caches = run_all(experiment, home)
    assert [asset for asset, cache in caches.items() if cache == "computed"] == ["batchtopk_sae"]


def test_a_plan_calls_a_damaged_artifact_a_miss_and_leaves_it_where_it_is_for_the_run_to_name(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path)
    experiment = load(tmp_path, dict.fromkeys(EDITS, 0))
    run_all(experiment, home)
    store = Store(home.store)
    folder = store.folder("batchtopk_sae", keys(experiment)["batchtopk_sae"])
    (folder / "data").unlink()
    lines = {line.asset: line for line in plan(experiment, store)}
    assert [asset for asset, line in lines.items() if line.cache == "miss"] == ["batchtopk_sae"]
    assert lines["batchtopk_sae"].reason == "removed or damaged"
    assert folder.exists() and not (store.root / ".damaged").exists()


def test_a_thousand_random_configs_have_a_thousand_keys(tmp_path: Path) -> None:
    found = set()
    for number in range(1000):
        (tmp_path / "e.yaml").write_text(f"sae:\n  seed: {number // 10}\n  k: {number % 10 + 1}\n")
        found.add(keys(Experiments(tmp_path).load("e"))["batchtopk_sae"])
    assert len(found) == 1000


def _record(root: Path, barrier: "Barrier", raised: "Queue[str]") -> None:
    history = History(Store(root))
    try:
        for number in range(200):
            barrier.wait()
            history.record("mini", "batchtopk_sae", f"{number:020d}")
    except OSError as error:
        raised.put(str(error))
        barrier.abort()


def test_two_runs_that_come_by_the_same_keys_at_once_both_note_them(tmp_path: Path) -> None:
    context = get_context("spawn")
    barrier, raised = context.Barrier(2), context.Queue()
    both = [context.Process(target=_record, args=(tmp_path, barrier, raised)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert raised.empty()
    assert History(Store(tmp_path)).last("mini", "batchtopk_sae") == f"{199:020d}"
