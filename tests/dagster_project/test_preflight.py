"""What a run lacks is told before it starts: GPUs, memory, an engine, keys, and outside data that cannot be had."""

from os.path import relpath
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.benchmarks import config, harness
from assets.benchmarks.config import BenchmarksConfig
from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import keys
from dagster_project.preflight import lacking
from dagster_project.rooms import STAGES, stage
from resources import hub
from resources.home import Home
from resources.launcher.deployment import Deployment
from resources.sources import PROJECT
from resources.store import Store
from tests.dagster_project.edits import run_all
from tests.faults.hub import hub as serving

NODE = Deployment(gpus=8, gpu_memory_gib=139)


def load(folder: Path, text: str) -> Experiment:
    (folder / "mini.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    (folder / "e.yaml").write_text(text)
    return Experiments(folder).load("e")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", tmp_path)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_mini_world_lacks_nothing_anywhere(home: Home, tmp_path: Path) -> None:
    assert lacking(load(tmp_path, "extends: mini\n"), home, Deployment(gpus=0), STAGES) == []


@pytest.mark.usefixtures("no_hub")
def test_each_missing_thing_is_one_sentence(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    paper = load(tmp_path, "description: the paper\n")
    found = lacking(paper, home, Deployment(gpus=0), STAGES)
    gpus, engine, explainer, scorer, categoriser, model, dataset, *questions = found
    assert gpus.startswith("lora_checkpoint, full_finetune_checkpoint, ") and "need GPUs, up to 8, and" in gpus
    assert "full_finetune_checkpoint holds " in gpus
    assert engine == (
        "benchmark_scores decodes with vLLM, which is not installed: pip install -e '.[gpu]', or set benchmarks.backend"
    )
    assert explainer == "interpretations asks paid models: set OPENAI_API_KEY, or choose others in its section"
    assert scorer.startswith("interpretation_scores asks paid models: set OPENAI_API_KEY")
    assert categoriser.startswith("feature_categories asks paid models: set ANTHROPIC_API_KEY and OPENAI_API_KEY, or")
    assert model.startswith("Qwen/Qwen2.5-32B-Instruct is neither")
    assert dataset.startswith("simplescaling/s1K-1.1 is neither")
    assert [one.split()[0] for one in questions] == [
        "simplescaling/aime24_nofigures", "simplescaling/openaimath", "Idavidrein/gpqa"
    ]  # fmt: skip


def test_the_checkpoints_of_the_full_finetune_are_refused_on_a_disk_without_room_for_two(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, training = load(tmp_path, "description: the paper\n"), stage("full_finetune_checkpoint")
    two = 2 * 12 * 32_763_876_352

    def said(free: int) -> list[str]:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        return [one for one in lacking(paper, home, NODE, [training]) if "GiB under" in one]

    [refused] = said(two - 1)
    assert refused.startswith(f"full_finetune_checkpoint needs 732 GiB under {home.store}, where 732 are free: ")
    assert said(two) == []
    [(_, key)] = [pair for pair in keys(paper).items() if pair[0] == training.asset]
    left = Store(home.store).workspace(training.asset, key).scratch / "shard"
    left.write_bytes(b"0" * 1000)
    assert said(two - 1000) == []
    published = load(tmp_path, f"full_finetune: {{source: someone/model, revision: {'a' * 40}}}\n")
    assert [one for one in lacking(published, home, NODE, [training]) if "GiB under" in one] == []


@pytest.mark.usefixtures("no_hub")
def test_the_page_on_gpus_says_how_many_the_full_finetune_needs(home: Home, tmp_path: Path) -> None:
    paper, training = load(tmp_path, "description: the paper\n"), stage("full_finetune_checkpoint")

    def fits(gpus: int) -> bool:
        said = lacking(paper, home, Deployment(gpus=gpus, gpu_memory_gib=139), [training])
        return not any("does not fit on a GPU" in one for one in said)

    assert [gpus for gpus in range(1, 9) if fits(gpus)] == [6, 7, 8]
    assert "(the full finetune of 32 B needs six H200)" in (PROJECT / "docs" / "how-to" / "gpus.md").read_text()


@pytest.mark.usefixtures("no_hub")
def test_only_what_the_wanted_stages_read_is_missed(home: Home, tmp_path: Path) -> None:
    paper = load(tmp_path, "description: the paper\n")
    assert len(lacking(paper, home, Deployment(gpus=0), [stage("s1k_dataset")])) == 2
    [memory, model] = lacking(paper, home, Deployment(gpus=8, gpu_memory_gib=40), [stage("neuron_shards")])[:2]
    assert memory.startswith("neuron_shards does not fit on a GPU of 40 GiB")
    assert model.startswith("Qwen/Qwen2.5-32B-Instruct is neither")


def test_what_is_in_the_store_already_lacks_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    paid = load(tmp_path, "extends: mini\ninterpretations:\n  provider: openai\n")
    run_all(paid, home)
    assert lacking(paid, home, Deployment(gpus=0), STAGES) == []


@pytest.mark.usefixtures("no_hub")
def test_a_repository_is_missed_by_who_reads_it_and_only_where_the_cache_lacks_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = load(tmp_path, f"extends: mini\nlora: {{source: someone/adapter, revision: {'a' * 40}}}\n")
    assert lacking(taken, home, Deployment(gpus=0), [stage("s1k_dataset")]) == []
    [said] = lacking(taken, home, Deployment(gpus=0), [stage("lora_checkpoint")])
    assert said.startswith("someone/adapter is neither")
    monkeypatch.setattr(hub, "is_cached", lambda *_: True)
    assert lacking(taken, home, Deployment(gpus=0), [stage("lora_checkpoint")]) == []


def test_a_hub_that_answers_is_left_to_the_jobs(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    paper = load(tmp_path, "description: the paper\n")
    monkeypatch.setattr(hub, "hub_answers", lambda: True)
    assert lacking(paper, home, NODE, [stage("s1k_dataset")]) == []


def test_questions_that_the_user_may_not_read_are_told_before_anything_is_computed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None
) -> None:
    paper, scores = load(tmp_path, "description: the paper\n"), [stage("benchmark_scores")]
    names = ("someone/gated", "someone/good", "someone/down", "someone/missing")
    monkeypatch.setattr(BenchmarksConfig, "repositories", lambda _: [(name, "main") for name in names])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(PROJECT / "resources" / "mini_world" / "model") as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.address)
        said = [one for one in lacking(paper, home, NODE, scores) if one.startswith("someone/")]
        elsewhere = NODE.model_copy(update={"prefix": ("ssh", "login-node")})
        assert [one for one in lacking(paper, home, elsewhere, scores) if one.startswith("someone/")] == []
    assert said == [
        "someone/gated cannot be loaded from the hub: access must be asked for on its page; then set HF_TOKEN or run "
        "`hf auth login`",
        "someone/missing cannot be loaded from the hub: it is not there, or private: check the name, or set HF_TOKEN",
    ]


def test_questions_of_ones_own_are_read_before_anything_is_computed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (PROJECT / "docs" / "how-to" / "own.md").read_text()
    task = page.partition("# assets/benchmarks/tasks/my_problems.yaml\n")[2].partition("```")[0]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "my_problems.yaml").write_text(task.replace("/data/", f"{tmp_path}/"))
    for module in (config, harness):
        monkeypatch.setattr(module, "TASK_FOLDER", tmp_path / "tasks")
    table = tmp_path / "my_problems.parquet"

    def said(rows: dict[str, list[str]], *assets: str, prefix: tuple[str, ...] = ()) -> list[str]:
        pq.write_table(pa.table(rows), table)
        mine = load(tmp_path, "extends: mini\nbenchmarks: {tasks: [my_problems]}\n")
        return lacking(mine, home, Deployment(gpus=0, prefix=prefix), [stage(asset) for asset in assets])

    unanswered = {"question": ["What?"], "reply": ["4"]}
    [missing] = said(unanswered, "lora_checkpoint", "benchmark_scores")
    assert missing.startswith("my_problems: question 0 has no text under answer or orig_answer (its columns are ")
    assert said({"question": ["What?"], "answer": ["4"]}, "lora_checkpoint", "benchmark_scores") == []
    assert said(unanswered, "lora_checkpoint") == []
    assert said(unanswered, "benchmark_scores", prefix=("ssh", "login-node")) == []


@pytest.mark.usefixtures("no_hub")
def test_a_snapshot_in_the_cache_is_found_by_its_commit(tmp_path: Path) -> None:
    commit = "a" * 40
    assert not hub.is_cached("someone/model", commit, kind="model")
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert hub.is_cached("someone/model", commit, kind="model")
    assert not hub.is_cached("someone/model", commit, kind="dataset")


def test_an_engine_is_looked_for_where_jobs_run_with_this_interpreter(home: Home, tmp_path: Path) -> None:
    fast = load(tmp_path, "extends: mini\nbenchmarks: {backend: vllm, tensor_parallel_size: 2}\n")
    scores = [stage("benchmark_scores")]
    assert len(lacking(fast, home, Deployment(gpus=0), scores)) == 1
    assert lacking(fast, home, Deployment(gpus=0), [stage("ablation_kl")]) == []
    for other in (Deployment(gpus=0, python="/bin/sh"), Deployment(gpus=0, backend="slurm", prefix=("ssh", "n"))):
        assert lacking(fast, home, other, scores) == []


def test_an_interpreter_that_is_not_there_is_told_where_jobs_run_on_this_machine(home: Home, tmp_path: Path) -> None:
    mini, data = load(tmp_path, "extends: mini\n"), [stage("s1k_dataset")]
    for name in ("/no/such/python", "pithon", "resources", "README.md"):
        [said] = lacking(mini, home, Deployment(gpus=0, python=name), data)
        assert said == f"python: {name} in compute.yaml is no program of this machine: correct it, or leave it out"
    # a path in it is one from the project, where jobs run
    elsewhere = Deployment(gpus=0, backend="slurm", python="/no/such/python")
    for there in (Deployment(gpus=0, python="sh"), Deployment(gpus=0, python=relpath("/bin/sh", PROJECT)), elsewhere):
        assert lacking(mini, home, there, data) == []
    assert lacking(mini, home, Deployment(gpus=0, python="pithon"), []) == []


def test_an_engine_over_more_gpus_than_a_node_has_is_told(home: Home, tmp_path: Path) -> None:
    paper, scores = load(tmp_path, "benchmarks: {tensor_parallel_size: 4}\n"), [stage("benchmark_scores")]

    def said(gpus: int) -> list[str]:
        return [one for one in lacking(paper, home, Deployment(gpus=gpus), scores) if "tensor" in one]

    for few in (1, 2):
        told = f"benchmark_scores gets {few} GPUs and benchmarks.tensor_parallel_size is 4: set it to {few} or less"
        assert said(few) == [told]
    assert said(4) == said(8) == []


def test_keys_are_looked_for_where_the_jobs_run(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    paid = load(tmp_path, "extends: mini\ninterpretations:\n  provider: openai\n")
    for asset in ("interpretations", "interpretation_scores"):
        [said] = lacking(paid, home, Deployment(gpus=0), [stage(asset)])
        assert said == f"{asset} asks paid models: set OPENAI_API_KEY, or choose others in its section"
    remote = Deployment(backend="slurm", prefix=("ssh", "login-node"), gpus=0)
    assert lacking(paid, home, remote, [stage("interpretations")]) == []
    asked_here = remote.model_copy(update={"cpu_jobs": "local"})
    assert len(lacking(paid, home, asked_here, [stage("interpretations")])) == 1
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert lacking(paid, home, Deployment(gpus=0), [stage("interpretations")]) == []
