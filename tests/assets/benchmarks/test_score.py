"""The whole room on a tiny model: artifact, resume, regrading, missing data, several processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from assets.benchmarks import score as score_module
from assets.benchmarks.artifact import BenchmarkScores
from assets.benchmarks.codec import Codec
from assets.benchmarks.config import ARMS, BenchmarksConfig, task_names
from assets.benchmarks.engine import Arm, Completion, Engine, Request
from assets.benchmarks.generate_hf import HfEngine
from assets.benchmarks.generations import GenerationCache, Shard
from resources.errors import BadInput
from resources.hub import fetched
from resources.progress import Progress
from tests.assets.benchmarks.conftest import QUESTIONS, World
from tests.faults.hub import hub as serving


class Refusing:
    """A back end that must not be asked."""

    interleaves = False

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        raise AssertionError(f"asked {len(requests)} questions of {arm.name}")


def test_every_arm_answers_every_question_and_the_tables_agree(world: World) -> None:
    metrics = world.score()
    scores = BenchmarkScores.open(world.out())
    rows = scores.scores()
    assert [(row["arm"], row["benchmark"]) for row in rows] == [
        (arm, task) for arm in ARMS for task in ("mini_hard", "mini_medium", "mini_choice")
    ]
    records = scores.records().to_pylist()
    assert len(records) == metrics.answers == metrics.generated == 15 * QUESTIONS
    for row in rows:
        mine = [one for one in records if (one["arm"], one["benchmark"]) == (row["arm"], row["benchmark"])]
        assert row["correct"] == sum(one["correct"] for one in mine)
        assert row["total"] == QUESTIONS
        assert row["score"] == row["correct"] / QUESTIONS
        assert row["ci_low"] <= row["score"] <= row["ci_high"]
        assert row["truncated"] == sum(one["tokens"] == 12 for one in mine)
    assert len(scores.pairs()) == 3 * 10
    assert scores.table().schema.names[:5] == ["arm", "benchmark", "correct", "total", "score"]
    assert (world.out() / "charts/scores.png").read_bytes().startswith(b"\x89PNG")
    drawn = json.loads((world.out() / "charts/scores.vl.json").read_text())["data"]["values"]
    assert {row["arm"] for row in drawn} == {"base", "LoRA", "full finetune", "attention ablated", "MLP ablated"}
    assert {row["arm"] for row in scores.recovery()} == {"lora", "attention_ablated", "mlp_ablated"}


def test_prompts_are_the_chat_template_around_the_problem_alone(world: World) -> None:
    world.score(arms=("base",), tasks=("mini_hard",))
    record = BenchmarkScores.open(world.out()).records().to_pylist()[1]
    assert record["prompt"] == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nhard : start with 1 .\n(1) add 1 and <|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_killed_run_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    complete = HfEngine.complete

    def dying(self: HfEngine, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(len(requests))
        return complete(self, arm, requests)

    monkeypatch.setattr(HfEngine, "complete", dying)
    with pytest.raises(KeyboardInterrupt):
        world.score("killed")
    monkeypatch.setattr(HfEngine, "complete", complete)
    resumed = world.score("resumed")
    assert asked == [4, 4, 2, 4]
    assert resumed.generated == 15 * QUESTIONS - sum(asked)
    monkeypatch.setenv("LORASCOPE_HOME", str(world.root / "other home"))
    whole = world.score("whole")
    assert whole.generated == 15 * QUESTIONS
    for file in ("records.parquet", "scores.parquet", "pairs.parquet", "recovery.parquet"):
        assert (world.out("resumed") / file).read_bytes() == (world.out("whole") / file).read_bytes()


def test_grading_again_generates_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.score("first")
    monkeypatch.setattr(score_module, "make_engine", lambda *_: Refusing())
    again = world.score("again")
    assert (again.generated, again.answers) == (0, 15 * QUESTIONS)


def test_answers_of_the_jobs_other_processes_are_generated_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"arms": ("base",), "tasks": ("mini_hard", "mini_choice")}
    world.score("first", **one | {"tasks": ("mini_hard",)})
    fill = score_module.fill

    def beside_another(engine: Engine, shards: Sequence[Shard], cache: GenerationCache, progress: Progress) -> None:
        fill(engine, shards[1:], cache, progress)
        fill(engine, shards, cache, progress)

    monkeypatch.setattr(score_module, "fill", beside_another)
    both = world.score("both", **one)
    assert (both.generated, both.answers) == (QUESTIONS, 2 * QUESTIONS)


def test_a_changed_lora_leaves_the_base_and_the_full_finetune_alone(
    world: World, tiny_model: Path, tmp_path: Path
) -> None:
    from tests.builders import build_random_adapter

    world.score("first")
    world.lora = build_random_adapter(tmp_path / "other", tiny_model, seed=7)
    assert world.score("second").generated == 9 * QUESTIONS


def test_what_changes_an_answer_changes_the_cache_key(world: World) -> None:
    one = {"arms": ("base",), "tasks": ("mini_hard",)}
    assert world.score("a", **one).generated == QUESTIONS
    assert world.score("b", **one, max_gen_toks=11).generated == QUESTIONS
    assert world.score("c", **one, temperature=0.5).generated == QUESTIONS
    assert world.score("d", **one, temperature=0.5, seed=1).generated == QUESTIONS
    assert world.score("e", **one, wait_times=1).generated == QUESTIONS
    assert world.score("f", **one, seed=1).generated == 0


def test_several_samples_are_scored_by_question(world: World) -> None:
    metrics = world.score(arms=("base",), tasks=("mini_choice",), samples=3, temperature=1.0)
    (row,) = metrics.scores
    assert (row["questions"], row["total"]) == (QUESTIONS, 3 * QUESTIONS)
    records = BenchmarkScores.open(world.out()).records().to_pylist()
    assert [record["sample"] for record in records[:4]] == [0, 1, 2, 0]
    assert len({record["output"] for record in records}) > QUESTIONS
    assert row["score"] == pytest.approx(sum(record["correct"] for record in records) / len(records))


def test_limit_asks_the_first_questions_only(world: World) -> None:
    metrics = world.score(limit=3, arms=("base",))
    assert metrics.answers == 9


def test_a_named_adapter_is_one_more_arm(world: World) -> None:
    metrics = world.score(arms=("lora",), tasks=("mini_hard",), adapters=(f"early={world.lora}",))
    assert [row["arm"] for row in metrics.scores] == ["lora", "early"]
    # The same adapter under another name: its answers are there already.
    assert metrics.generated == QUESTIONS


def test_an_adapter_that_is_no_folder_is_refused(world: World) -> None:
    with pytest.raises(BadInput, match=r"benchmarks\.adapters: early names nowhere"):
        world.score(adapters=("early=nowhere",))


def test_a_prompt_that_leaves_no_room_is_refused_with_the_largest_that_fits(world: World) -> None:
    with pytest.raises(BadInput, match="set max_gen_toks to at most"):
        world.score("long answer", max_gen_toks=480, context=512)
    with pytest.raises(BadInput, match=r"raise benchmarks\.context"):
        world.score("short context", max_gen_toks=None, context=20)


def test_a_context_beyond_the_models_is_refused(world: World) -> None:
    with pytest.raises(BadInput, match="takes 2048: lower it"):
        world.score(context=4096)


def test_without_max_gen_toks_an_answer_may_fill_the_context(world: World) -> None:
    world.score(arms=("base",), tasks=("mini_hard",), max_gen_toks=None, context=200, limit=3)
    for record in BenchmarkScores.open(world.out()).records().to_pylist():
        assert record["prompt_tokens"] + record["tokens"] == 200 or not record["truncated"]


def test_what_budget_forcing_puts_in_leaves_room_in_the_context(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(world.model)
    asked: list[tuple[int, int]] = []

    class Endless:
        """Never stops thinking, in one token per token asked for."""

        interleaves = False

        def complete(self, _arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
            for index, request in enumerate(requests):
                asked.append((len(codec.encode(request.prompt)), request.max_tokens))
                yield index, Completion("1" * request.max_tokens, request.max_tokens, "length")

    monkeypatch.setattr(score_module, "make_engine", lambda *_: Endless())
    world.score(arms=("base",), tasks=("mini_hard",), max_gen_toks=None, context=200, wait_times=2)
    assert len(asked) == 2 * QUESTIONS
    assert all(most > 0 and prompt + most <= 200 for prompt, most in asked)


def test_answers_that_name_no_letter_are_counted_and_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        """Names a letter in the first answer of a shard only."""

        interleaves = False

        def complete(self, _arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
            for index, _ in enumerate(requests):
                yield index, Completion("no idea" if index else "So the answer is B.", 4, "stop")

    monkeypatch.setattr(score_module, "make_engine", lambda *_: Silent())
    (row,) = world.score(arms=("base",), tasks=("mini_choice",)).scores
    # shards of 4, 4 and 2 questions, the first of each answered with B
    assert row["defaulted"] == 7
    assert any(line.startswith("mini_choice, base: 7 of 10 answers name no letter") for line in world.said)


def test_an_answer_ends_at_either_token_that_ends_a_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(world.model)
    stops: set[tuple[str, ...]] = set()

    class Asked:
        """Remembers what ends an answer."""

        interleaves = False

        def complete(self, _arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
            for index, request in enumerate(requests):
                stops.add(request.stop)
                yield index, Completion("1", 1, "stop")

    monkeypatch.setattr(score_module, "make_engine", lambda *_: Asked())
    world.score(arms=("base",), tasks=("mini_hard",))
    # generation_config.json of Qwen2.5-32B-Instruct: "eos_token_id": [151645, 151643], which are these
    assert stops == {("<|im_end|>", "<|endoftext|>")}
    assert [codec.decode([token]) for token in codec.ids(("<|im_end|>", "<|no such token|>", "<|endoftext|>"))] == [
        "<|im_end|>",
        "<|endoftext|>",
    ]


def test_missing_questions_are_told_at_the_end_and_the_others_are_kept(world: World) -> None:
    (world.root / "project/resources/mini_world/data/medium/test.parquet").unlink()
    with pytest.raises(
        BadInput, match=r"mini_medium: its questions cannot be loaded.*mini_hard, mini_choice.*generated"
    ):
        world.score("first")
    assert any("Mini hard" in line for line in world.said)
    assert world.score("second", tasks=("mini_hard", "mini_choice")).generated == 0


def test_a_gated_dataset_says_how_to_get_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hub of the tests refuses by the repository's name.
    monkeypatch.setattr(
        "assets.benchmarks.documents.fetched", lambda _, revision, kind: fetched("someone/gated", revision, kind=kind)
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(world.root) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        with pytest.raises(BadInput, match=r"gpqa_diamond_openai: .*access must be asked.*hf auth login") as caught:
            world.score(tasks=("mini_hard", "gpqa_diamond_openai"), arms=("base",))
    assert "What could be asked (mini_hard) is generated and kept" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["aime99"]}, "there is no benchmark 'aime99': use aime24_nofigures"),
        ({"tasks": ["mini_hard", "mini_hard"]}, "twice"),
        ({"tasks": []}, "at least 1"),
        ({"arms": ["lora", "lora"]}, "twice"),
        ({"adapters": ["early"]}, "write name=folder"),
        ({"adapters": ["base=x"]}, "is the name of an arm"),
        ({"samples": 4}, "set a temperature"),
        ({"max_gen_toks": 32768}, "leaves no room"),
        ({"backend": "server"}, "needs server_url"),
        ({"judge": "m", "judge_provider": "openai-compatible"}, "needs judge_url"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_runs(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BenchmarksConfig.model_validate(changes)


def test_the_defaults_are_the_papers() -> None:
    config = BenchmarksConfig()
    assert config.tasks == ("aime24_nofigures", "openai_math", "gpqa_diamond_openai")
    assert config.arms == ARMS
    assert (config.temperature, config.samples, config.context, config.judge) == (0.0, 1, 32768, "")
    assert not config.forces_budget
    assert "aime25_nofigures" in task_names()


def test_the_minis_questions_are_part_of_the_key() -> None:
    config = BenchmarksConfig(tasks=("mini_hard", "mini_choice"), adapters=("early=adapters/early",))
    assert config.sources() == (
        "adapters/early",
        "resources/mini_world/data/hard",
        "resources/mini_world/data/choice",
    )
    assert BenchmarksConfig().sources() == ()


CHILD = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import resources.sources
root = Path(sys.argv[1])
resources.sources.PROJECT = root / "project"
from tests.assets.benchmarks.conftest import World
from assets.benchmarks.score import score
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress
world = World(root, ModelConfig(name=sys.argv[2], dtype="float32"), Path(sys.argv[3]), Path(sys.argv[4]))
metrics = score(model=world.model, benchmarks=world.config(), lora_checkpoint=world.lora,
    full_finetune_checkpoint=world.full, out=root / "two/out", scratch=root / "two/scratch",
    progress=Progress(lambda _: None), compute=ComputeConfig(profile="cpu"))
assert (metrics is None) == (os.environ["RANK"] == "1")
"""


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.score("one")
    (world.root / "two/out").mkdir(parents=True)
    home = str(world.root / "home of two")
    arguments = [str(world.root), world.model.name, str(world.lora), str(world.full)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            env={**os.environ, "RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LORASCOPE_HOME": home},
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    for file in ("records.parquet", "scores.parquet", "pairs.parquet", "recovery.parquet", "lm_eval.json"):
        assert (world.out("one") / file).read_bytes() == (world.root / "two/out" / file).read_bytes()
    assert not list(Path(home).rglob("*.lock"))
    assert pq.read_table(world.root / "two/out/records.parquet").num_rows == 15 * QUESTIONS
