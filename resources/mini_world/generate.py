"""Write the finetuning set and the three benchmarks: `python -m resources.mini_world.generate [--out FOLDER]`.

The finetuning set has s1K-1.1's columns, so that the dataset room reads it like the real one. The same seed gives the
same rows.
"""

import argparse
import json
import logging
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from resources.mini_world.traces import Discourse, attempt, thinking
from resources.mini_world.world import KINDS, Kind, Problem, Split, sample_problem

logger = logging.getLogger(__name__)
DATA_FOLDER = Path(__file__).with_name("data")
SEED = 0
NUM_ROLLOUTS = 1000
NUM_BENCHMARK_PROBLEMS = 200
# Markers stand at most of the states that call for them, so that a greedy rollout shows them too.
ROLLOUT_DISCOURSE = Discourse(wait_below_zero=0.9, hmm=0.9)


def draw_problems(split: Split, kinds: list[Kind], seed: int) -> list[tuple[Kind, Problem]]:
    """One problem for each kind named, no two the same."""
    rng = random.Random(f"{seed}/{split}")
    seen: set[str] = set()
    problems: list[tuple[Kind, Problem]] = []
    while len(problems) < len(kinds):
        kind = kinds[len(problems)]
        problem = sample_problem(rng, split, kind)
        if problem.canonical not in seen:
            seen.add(problem.canonical)
            problems.append((kind, problem))
    return problems


def rollouts(seed: int = SEED, count: int = NUM_ROLLOUTS) -> pa.Table:
    """The finetuning set: the three kinds in turn."""
    rng = random.Random(f"{seed}/traces")
    problems = draw_problems("s1k_mini", [KINDS[index % len(KINDS)] for index in range(count)], seed)
    return pa.Table.from_pylist([_rollout(kind, problem, rng) for kind, problem in problems])


def _rollout(kind: Kind, problem: Problem, rng: random.Random) -> dict[str, str]:
    return {
        "question": problem.text,
        "solution": problem.answer,
        "cot_type": "math",
        "source_type": f"mini_world/{kind}",
        "metadata": json.dumps({"num_steps": len(problem.steps)}),
        "deepseek_thinking_trajectory": thinking(problem, rng, ROLLOUT_DISCOURSE),
        "deepseek_attempt": attempt(problem),
        "deepseek_grade": "Yes",
    }


def benchmark(kind: Kind, seed: int = SEED, count: int = NUM_BENCHMARK_PROBLEMS) -> pa.Table:
    """A test set of one kind, from the split of the same name."""
    return pa.Table.from_pylist([_test_row(problem) for _, problem in draw_problems(kind, [kind] * count, seed)])


def _test_row(problem: Problem) -> dict[str, str | int | list[str]]:
    row: dict[str, str | int | list[str]] = {
        "problem": problem.text,
        "answer": problem.answer,
        "num_steps": len(problem.steps),
    }
    if problem.options is not None:
        row["options"] = [str(value) for value in problem.options]
    return row


def write_all(folder: Path, seed: int = SEED) -> dict[str, pa.Table]:
    """Write the four sets below `folder`; returns them by relative path."""
    tables = {"s1k_mini/train.parquet": rollouts(seed)} | {
        f"{kind}/test.parquet": benchmark(kind, seed) for kind in KINDS
    }
    for name, table in tables.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")
    return tables


def main() -> None:
    """Write the sets and say how many rows each has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA_FOLDER)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, table in write_all(arguments.out, arguments.seed).items():
        logger.info("%s: %d rows", name, table.num_rows)


if __name__ == "__main__":
    main()
