"""The optional LLM judge, for answers that math-verify rejects or that name no letter (s1 asks gpt-4o-mini).

Through the project's priced and cached client: a judgement is paid for once, and a run that stopped goes on.
"""

from typing import Literal

from pydantic import BaseModel

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.grade import LETTERS
from assets.benchmarks.records import Row, contested, record_id
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.llm.ask import ask
from resources.llm.endpoint import Endpoint
from resources.llm.limits import Limits
from resources.llm.question import Question
from resources.progress import Progress

_VERSION = "benchmarks-judge-1"
# An unmarked attempt is the whole output; its answer, if any, stands at the end.
_LONGEST_ATTEMPT = 4000
# JSON leaves them as they are, and pydantic-ai splits a batch's file at them where some requests were not run.
_LINE_ENDS = dict.fromkeys(map(ord, "\u0085\u2028\u2029"), "\n")
_MATH = (
    "You compare a reference answer with a student's attempt. Say whether the attempt gives an answer equivalent to "
    "the reference. Be lenient on units, formatting, the order of a set's elements, decimals against fractions, and a "
    "missing base; a different value, or no final answer, is not equivalent. Do not solve the problem."
)
_CHOICE = (
    "You read a student's attempt at a multiple-choice question. Say which of the choices A to D the attempt gives as "
    "its final answer, or none if it gives no answer. Do not solve the question."
)


class MathVerdict(BaseModel):
    """Whether the attempt's answer is the reference answer."""

    equivalent: bool


class LetterVerdict(BaseModel):
    """Which choice the attempt gives."""

    letter: Literal["A", "B", "C", "D", "none"]


def apply_judge(records: list[Row], config: BenchmarksConfig, compute: ComputeConfig, progress: Progress) -> float:
    """Let the judge decide contested answers, in place; returns what it cost, US dollars.

    An answer whose judgement cannot be used stays ungraded (`correct` null).

    Raises:
        BadInput: when the judge cannot be asked at all. Contested answers are ungraded then.
    """
    if not config.judge:
        return 0.0
    due = [record for record in records if contested(record)]
    questions = {record_id(record): _question(record) for record in due}
    endpoint = Endpoint(config.judge_provider, config.judge, config.judge_url)
    try:
        asked = ask(list(questions.values()), len(questions), endpoint, Limits.of(compute), progress, "judge")
        asked.check_complete()
    except BadInput as error:
        for record in due:
            record.update(correct=None, strict_correct=None, graded_by="none", judge_note=str(error))
        raise
    for record in due:
        answer = asked.answers[record_id(record), 0]
        _decide(record, answer.value, answer.failure)
    return asked.bill.cost_usd


def _question(record: Row) -> Question:
    attempt = record["extracted"][-_LONGEST_ATTEMPT:]
    if record["graded_by"] == "math_verify":
        user = f"Reference answer:\n{record['gold']}\n\nAttempt:\n{attempt}"
        return Question(record_id(record), _MATH, user.translate(_LINE_ENDS), MathVerdict, _VERSION)
    choices = "\n".join(f"({letter}) {text}" for letter, text in zip(LETTERS, record["choices"], strict=False))
    user = f"Choices:\n{choices or 'A, B, C, D'}\n\nAttempt:\n{attempt}"
    return Question(record_id(record), _CHOICE, user.translate(_LINE_ENDS), LetterVerdict, _VERSION)


def _decide(record: Row, verdict: BaseModel | None, failure: str) -> None:
    """Write a judgement into its record."""
    if isinstance(verdict, MathVerdict):
        record.update(correct=verdict.equivalent, strict_correct=verdict.equivalent, graded_by="judge")
    elif isinstance(verdict, LetterVerdict) and verdict.letter != "none":
        same = verdict.letter == record["gold"]
        record.update(correct=same, strict_correct=same, graded_by="judge")
    elif verdict is None:
        record.update(correct=None, strict_correct=None, graded_by="none", judge_note=failure)
