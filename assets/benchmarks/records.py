"""From answers to records and from records to the score tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.benchmarks.engine import Completion
from assets.benchmarks.extract import extract
from assets.benchmarks.grade import grade_choice, grade_math
from assets.benchmarks.statistics import paired, recovery, score_estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assets.benchmarks.harness import Benchmark, Question

Row = dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """One arm's answers to one benchmark: `answers[q][s]` is sample s of question q."""

    arm: str
    benchmark: "Benchmark"
    answers: list[list[Completion]]


def make_records(answered: Answered, prompt_tokens: Sequence[int]) -> list[Row]:
    """Rows of `artifact.RECORDS`, before any judge."""
    return [
        _record(answered, question, sample, completion, count)
        for question, completions, count in zip(
            answered.benchmark.questions, answered.answers, prompt_tokens, strict=True
        )
        for sample, completion in enumerate(completions)
    ]


def _record(answered: Answered, question: "Question", sample: int, completion: Completion, prompt_tokens: int) -> Row:
    found = extract(completion.text)
    if answered.benchmark.multiple_choice:
        grade = grade_choice(found, question.gold, question.choices)
    else:
        grade = grade_math(found, question.gold)
    return {
        "arm": answered.arm,
        "benchmark": answered.benchmark.name,
        "question_id": question.id,
        "sample": sample,
        "prompt": question.prompt,
        "choices": list(question.choices),
        "gold": question.gold,
        "output": completion.text,
        "extracted": found.text,
        "rule": found.rule,
        "correct": grade.correct,
        "strict_correct": grade.strict,
        "graded_by": grade.by,
        "judge_note": "",
        "prompt_tokens": prompt_tokens,
        "tokens": completion.num_tokens,
        "finish_reason": completion.finish,
        "truncated": completion.finish == "length",
    }


def record_id(record: Row) -> str:
    """`arm/benchmark/question/sample`."""
    return "/".join(str(record[name]) for name in ("arm", "benchmark", "question_id", "sample"))


def contested(record: Row) -> bool:
    """Whether a judge may still find the answer right: it was not empty, and nothing has shown that it is right."""
    open_to_doubt = record["graded_by"] in ("math_verify", "default", "none")
    return bool(record["extracted"]) and not record["strict_correct"] and open_to_doubt


def score_rows(records: Iterable[Row], samples: int) -> list[Row]:
    """Rows of `artifact.SCORES`, in the order in which arms and benchmarks come."""
    return [_score(arm, benchmark, rows, samples) for (arm, benchmark), rows in _grouped(records).items()]


def _score(arm: str, benchmark: str, rows: list[Row], samples: int) -> Row:
    ungraded = sum(row["correct"] is None for row in rows)
    correct, strict = (sum(bool(row[name]) for row in rows) for name in ("correct", "strict_correct"))
    estimate = None if ungraded else score_estimate(_by_question(rows), samples)
    return {
        "arm": arm,
        "benchmark": benchmark,
        "correct": correct,
        "total": len(rows),
        "score": estimate and estimate.value,
        "ci_low": estimate and estimate.low,
        "ci_high": estimate and estimate.high,
        "strict_correct": strict,
        "strict_score": strict / len(rows),
        "questions": len({row["question_id"] for row in rows}),
        "truncated": sum(row["truncated"] for row in rows),
        "empty": sum(row["rule"] == "empty" for row in rows),
        "unmarked": sum(row["rule"] == "whole" for row in rows),
        "defaulted": sum(row["graded_by"] == "default" for row in rows),
        "ungraded": ungraded,
        "highest": (correct + ungraded) / len(rows),
        "mean_tokens": sum(row["tokens"] for row in rows) / len(rows),
    }


def pair_rows(records: Iterable[Row], samples: int) -> list[Row]:
    """Rows of `artifact.PAIRS`: every pair of arms that is graded in full."""
    rows: list[Row] = []
    for benchmark, arms in _right(records).items():
        for first, second in combinations(arms, 2):
            result = paired(arms[first], arms[second], samples)
            rows.append(
                {
                    "benchmark": benchmark,
                    "first": first,
                    "second": second,
                    "only_first": result.only_first,
                    "only_second": result.only_second,
                    "p_value": result.p_value,
                    "difference": result.difference.value,
                    "ci_low": result.difference.low,
                    "ci_high": result.difference.high,
                }
            )
    return rows


def recovery_rows(records: Iterable[Row]) -> list[Row]:
    """Rows of `artifact.RECOVERY`: every adapter arm where base and full finetune were asked too."""
    rows: list[Row] = []
    for benchmark, arms in _right(records).items():
        if not {"base", "full_finetune"} <= arms.keys():
            continue
        for arm in arms.keys() - {"base", "full_finetune"}:
            found = recovery(arms["base"], arms[arm], arms["full_finetune"])
            rows.append(
                {
                    "benchmark": benchmark,
                    "arm": arm,
                    "recovery": found and found.value,
                    "ci_low": found and found.low,
                    "ci_high": found and found.high,
                }
            )
    return sorted(rows, key=lambda row: (row["benchmark"], row["arm"]))


def _grouped(records: Iterable[Row]) -> Mapping[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for record in records:
        groups.setdefault((record["arm"], record["benchmark"]), []).append(record)
    return groups


def _right(records: Iterable[Row]) -> dict[str, "dict[str, NDArray[np.float64]]"]:
    """Benchmark -> arm -> share of right samples per question; arms with ungraded answers are left out."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for (arm, benchmark), rows in _grouped(records).items():
        if all(row["correct"] is not None for row in rows):
            found.setdefault(benchmark, {})[arm] = _by_question(rows)
    return found


def _by_question(rows: Sequence[Row]) -> "NDArray[np.float64]":
    """Share of right samples per question, in the order of the questions."""
    samples: dict[str, list[bool]] = {}
    for row in rows:
        samples.setdefault(row["question_id"], []).append(row["correct"])
    return np.array([sum(right) / len(right) for right in samples.values()])
