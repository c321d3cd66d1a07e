"""The verb of this room: ask every arm every question, grade, count."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from assets.benchmarks import artifact
from assets.benchmarks.arms import build_arms
from assets.benchmarks.chart import save_scores_chart
from assets.benchmarks.codec import Codec
from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm, Engine, Request, request_seed
from assets.benchmarks.fill import fill
from assets.benchmarks.forcing import Budget, ForcingEngine, inserted
from assets.benchmarks.generations import GenerationCache, Shard, shards
from assets.benchmarks.judge import apply_judge
from assets.benchmarks.records import Answered, Row, make_records, pair_rows, record_id, recovery_rows, score_rows
from assets.benchmarks.tables import consistency, table_1, table_2
from resources.chat import END_TOKENS
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.home import find_home
from resources.models import ModelConfig, load_architecture
from resources.progress import Progress
from resources.ranks import Rank

if TYPE_CHECKING:
    from assets.benchmarks.harness import Benchmark, Render


MANY_DEFAULTS = 0.05
"""Share of answers without a letter from which the log says so."""


class BenchmarkMetrics(BaseModel, frozen=True, extra="forbid"):
    """What the UI shows of a run."""

    table_1: list[dict[str, Any]]
    """Base, LoRA, full finetune, recovery; ours with 95 % intervals, the paper's beside it."""
    table_2: list[dict[str, Any]]
    """LoRA and its two ablations."""
    consistency: list[dict[str, Any]]
    """Scores that the paper reports too."""
    scores: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    """Exact McNemar between arms."""
    answers: int
    generated: int
    """Answers that were not in the cache when this job came to them, whichever of its processes generated them."""
    truncated: int
    ungraded: list[str]
    """Answers a judge was due for and could not be asked: `arm/benchmark/question/sample`, at most 50."""
    num_ungraded: int
    cost_usd: float
    """What the judge cost in this run."""


@dataclass(frozen=True)
class _Work:
    """What is asked: the arms, the benchmarks that could be loaded, and why others could not."""

    arms: list[Arm]
    benchmarks: list["Benchmark"]
    missing: list[str]
    prompt_tokens: dict[str, list[int]]
    shards: dict[tuple[str, str], list[Shard]]
    """By arm and benchmark."""


def score(
    *,
    model: ModelConfig,
    benchmarks: BenchmarksConfig,
    lora_checkpoint: Path,
    full_finetune_checkpoint: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> BenchmarkMetrics | None:
    """Benchmark scores of every arm (paper, Tables 1 and 2); None on every process but the first.

    Raises:
        BadInput: when a benchmark's questions cannot be had (after the others are generated, graded and told), when
            prompt and answer do not fit the context, or when an arm cannot be loaded.
    """
    rank = Rank.here()
    if benchmarks.backend == "vllm" and not hosts_engine(benchmarks, rank):
        return None
    codec = Codec(model)
    folder = scratch / f"arms-{rank.index}"
    arms = build_arms(model, benchmarks, lora_checkpoint, full_finetune_checkpoint, folder)
    engine, room = make_engine(model, benchmarks, compute, arms), 0
    if benchmarks.forces_budget:
        budget = Budget(benchmarks.max_thinking_tokens, benchmarks.wait_times)
        engine, room = ForcingEngine(engine, budget), sum(codec.count(inserted(budget)))
    work = _plan(model, benchmarks, codec, arms, room)
    cache = GenerationCache(find_home().generations)
    all_shards = [shard for part in work.shards.values() for shard in part]
    missing = {shard.key: len(shard.requests) for shard in all_shards if not cache.has(shard)}
    fill(engine, all_shards, cache, progress)
    if rank.index != 0:
        return None
    return _report(work, benchmarks, codec.render, cache, sum(missing.values()), out, progress, compute)


def make_engine(model: ModelConfig, config: BenchmarksConfig, compute: ComputeConfig, arms: Sequence[Arm]) -> Engine:
    """The back end of the config; it loads no weights before it is asked something."""
    if config.backend == "hf":
        from assets.benchmarks.generate_hf import HfEngine

        return HfEngine(model, Rank.here().device(compute.device), config.batch_size)
    if config.backend == "vllm":
        from assets.benchmarks.generate_vllm import VllmEngine

        return VllmEngine(model, config, arms)
    from assets.benchmarks.generate_server import ServerEngine

    return ServerEngine(config)


def hosts_engine(config: BenchmarksConfig, rank: Rank) -> bool:
    """A vLLM engine takes `tensor_parallel_size` processes' GPUs and runs in the first of them.

    GPUs that are too few for one more engine have none.
    """
    size = config.tensor_parallel_size
    return rank.index % size == 0 and (rank.index == 0 or rank.index + size <= rank.world)


def _plan(model: ModelConfig, config: BenchmarksConfig, codec: Codec, arms: Sequence[Arm], room: int) -> _Work:
    """`room`: tokens that budget forcing may put into one answer."""
    from assets.benchmarks.harness import load_benchmark

    window = getattr(load_architecture(model), "max_position_embeddings", config.context)
    if config.context > window:
        raise BadInput(f"benchmarks.context is {config.context} tokens, but {model.name} takes {window}: lower it")
    loaded: list[Benchmark] = []
    missing: list[str] = []
    for name in config.tasks:
        try:
            loaded.append(
                load_benchmark(name, codec.render, limit=config.limit, samples=config.samples, seed=config.seed)
            )
        except BadInput as error:
            missing.append(str(error))
    counts = {one.name: codec.count([question.prompt for question in one.questions]) for one in loaded}
    requests = {one.name: _requests(one, [count + room for count in counts[one.name]], config) for one in loaded}
    # Batches shape float32 sums, tensor parallelism their order: both belong to what made an answer.
    made_by = [
        config.backend,
        config.batch_size,
        config.tensor_parallel_size,
        config.max_thinking_tokens,
        config.wait_times,
    ]
    parts = {
        (arm.name, one.name): shards(arm, one.name, requests[one.name], config.shard_size, made_by)
        for arm in arms
        for one in loaded
    }
    return _Work(list(arms), loaded, missing, counts, parts)


def _requests(benchmark: "Benchmark", counts: Sequence[int], config: BenchmarksConfig) -> list[Request]:
    """One request per question and sample, question-major; `counts`: tokens that are no part of the answer.

    Raises:
        BadInput: when the longest prompt and the answer do not fit the context together.
    """
    longest = max(counts)
    room = config.context - longest
    if room < (config.max_gen_toks or 1):
        remedy = f"set max_gen_toks to at most {room}" if room > 0 else "raise benchmarks.context"
        raise BadInput(
            f"{benchmark.name}: the longest prompt (with what budget forcing adds) has {longest} tokens and "
            f"max_gen_toks is {config.max_gen_toks}, which do not fit benchmarks.context of {config.context}; {remedy}"
        )
    return [
        Request(
            question.prompt,
            config.max_gen_toks or config.context - count,
            END_TOKENS,
            config.temperature,
            request_seed(config.seed, question.id, sample) if config.temperature else 0,
        )
        for question, count in zip(benchmark.questions, counts, strict=True)
        for sample in range(config.samples)
    ]


def _report(
    work: _Work,
    config: BenchmarksConfig,
    render: "Render",
    cache: GenerationCache,
    generated: int,
    out: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> BenchmarkMetrics:
    """Grade what lies in the cache and write the artifact."""
    answered = [_answered(work, arm.name, one, cache, config.samples) for arm in work.arms for one in work.benchmarks]
    records = [row for part in answered for row in make_records(part, work.prompt_tokens[part.benchmark.name])]
    harness = _harness_results(answered, config, render)
    _agree(harness, score_rows(records, config.samples))
    cost, troubles = 0.0, list(work.missing)
    try:
        cost = apply_judge(records, config, compute, progress)
    except BadInput as error:
        troubles.append(f"the judge could not be asked, so scores are given as bounds in the log only: {error}")
    scores = score_rows(records, config.samples)
    recoveries = recovery_rows(records)
    tables = {"table_1": table_1(scores, recoveries), "table_2": table_2(scores)}
    _say([row for rows in tables.values() for row in rows], progress)
    _warn_of_defaults(scores, progress)
    if troubles:
        # Not stored: a stored artifact would be taken for the whole answer ever after.
        raise BadInput(
            "; ".join(troubles)
            + f". What could be asked ({', '.join(one.name for one in work.benchmarks) or 'nothing'}) is generated and "
            "kept, its scores are in the log: run again when this is mended, or leave it out of the config"
        )
    pairs = pair_rows(records, config.samples)
    artifact.write(out / "records.parquet", records, artifact.RECORDS)
    artifact.write(out / "scores.parquet", scores, artifact.SCORES)
    artifact.write(out / "pairs.parquet", pairs, artifact.PAIRS)
    artifact.write(out / "recovery.parquet", recoveries, artifact.RECOVERY)
    save_scores_chart(scores, out)
    (out / "lm_eval.json").write_text(json.dumps(harness, indent=1))
    ungraded = [row for row in records if row["correct"] is None]
    return BenchmarkMetrics(
        **tables,
        consistency=consistency(scores),
        scores=scores,
        pairs=pairs,
        answers=len(records),
        generated=generated,
        truncated=sum(row["truncated"] for row in records),
        ungraded=[record_id(row) for row in ungraded[:50]],
        num_ungraded=len(ungraded),
        cost_usd=cost,
    )


def _say(rows: Sequence[Row], progress: Progress) -> None:
    for row in rows:
        progress.say("  ".join(f"{name} {value}" for name, value in row.items() if value is not None))


def _warn_of_defaults(scores: Sequence[Row], progress: Progress) -> None:
    for row in scores:
        if row["defaulted"] > MANY_DEFAULTS * row["total"]:
            progress.say(
                f"{row['benchmark']}, {row['arm']}: {row['defaulted']} of {row['total']} answers name no letter that "
                'could be read and count as "A" (s1\'s rule); a model reads them if benchmarks.judge names one (s1: '
                "gpt-4o-mini)"
            )


def _answered(work: _Work, arm: str, benchmark: "Benchmark", cache: GenerationCache, samples: int) -> Answered:
    flat = [answer for shard in work.shards[arm, benchmark.name] for answer in cache.read(shard)]
    return Answered(arm, benchmark, [flat[start : start + samples] for start in range(0, len(flat), samples)])


def _harness_results(answered: Sequence[Answered], config: BenchmarksConfig, render: "Render") -> dict[str, Any]:
    """lm-eval's results by arm."""
    from assets.benchmarks.harness import evaluate_answers

    by_arm: dict[str, list[Answered]] = {}
    for part in answered:
        by_arm.setdefault(part.arm, []).append(part)
    return {
        arm: evaluate_answers(
            [part.benchmark for part in parts],
            render,
            {
                (part.benchmark.name, number): [answer.text for answer in answers]
                for part in parts
                for number, answers in enumerate(part.answers)
            },
            config.limit,
        )
        for arm, parts in by_arm.items()
    }


def _agree(harness: Mapping[str, Any], scores: Sequence[Row]) -> None:
    """lm-eval and the records must come to the same score (before any judge)."""
    for row in scores:
        theirs = harness[row["arm"]][row["benchmark"]]["exact_match,samples"]
        assert abs(theirs - row["score"]) < 1e-9, (row["arm"], row["benchmark"], theirs, row["score"])
