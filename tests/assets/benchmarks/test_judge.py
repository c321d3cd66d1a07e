"""The judge behind a real HTTP server: whom it is asked about, what it decides, and what happens when it fails."""

import json
from typing import Any

import pytest

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.judge import apply_judge
from assets.benchmarks.records import score_rows
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.progress import Progress
from tests.assets.benchmarks.local_server import Reply, chat, serving
from tests.resources.llm.fault_server import Settings
from tests.resources.llm.servers import KEY
from tests.resources.llm.servers import serving as serving_faults

COMPUTE = ComputeConfig(profile="cpu", llm_attempts=2, llm_timeout_s=10)


def record(
    question: str, extracted: str, gold: str, by: str, correct: bool, strict: bool | None = None
) -> dict[str, Any]:
    return {
        "arm": "base",
        "benchmark": "openai_math",
        "question_id": question,
        "sample": 0,
        "choices": ["1 eV", "2 eV", "3 eV", "4 eV"] if by in ("default", "letter") else [],
        "gold": gold,
        "extracted": extracted,
        "correct": correct,
        "strict_correct": correct if strict is None else strict,
        "graded_by": by,
        "judge_note": "",
        "rule": "boxed",
        "truncated": False,
        "tokens": 3,
    }


def records() -> list[dict[str, Any]]:
    return [
        record("right", "7", "7", "integer", True),
        record("wrong integer", "8", "7", "integer", False),
        record("equivalent", "x<2 or x>3", "(-\\infty,2)\\cup(3,\\infty)", "math_verify", False),
        record("different", "x<9", "(-\\infty,2)", "math_verify", False),
        record("letter", "the second one", "B", "default", False),
        record("lucky", "no idea", "A", "default", True, False),
        record("empty", "", "A", "default", True, False),
    ]


def judge(url: str, rows: list[dict[str, Any]]) -> float:
    config = BenchmarksConfig(judge="m", judge_provider="openai-compatible", judge_url=url)
    return apply_judge(rows, config, COMPUTE, Progress(lambda _: None))


@pytest.fixture(autouse=True)
def _home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(tmp_path))


def verdict(request: dict[str, Any]) -> str:
    user = request["messages"][1]["content"]
    if user.startswith("Reference"):
        return json.dumps({"equivalent": "x<2 or x>3" in user})
    return json.dumps({"letter": "B" if "second" in user else "none"})


def test_it_decides_only_what_the_rules_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request["messages"][1]["content"])
        return chat(verdict(request))

    rows = records()
    with serving(answer) as url:
        judge(url, rows)
        assert len(asked) == 4
        judge(url, again := records())
    assert len(asked) == 4, "the second run is answered from the cache"
    assert again == rows
    by_id = {row["question_id"]: (row["correct"], row["strict_correct"], row["graded_by"]) for row in rows}
    assert by_id == {
        "right": (True, True, "integer"),
        "wrong integer": (False, False, "integer"),
        "equivalent": (True, True, "judge"),
        "different": (False, False, "judge"),
        "letter": (True, True, "judge"),
        "lucky": (True, False, "default"),
        "empty": (True, False, "default"),
    }


def test_an_unusable_judgement_leaves_its_answer_ungraded_with_the_reason() -> None:
    def answer(_: str, request: dict[str, Any]) -> Reply:
        reference = request["messages"][1]["content"].startswith("Reference")
        return chat("not json" if reference else verdict(request))

    rows = records()
    with serving(answer) as url:
        judge(url, rows)
    ungraded = [row["question_id"] for row in rows if row["correct"] is None]
    assert ungraded == ["equivalent", "different"]
    assert all(row["judge_note"] for row in rows if row["correct"] is None)
    (score,) = score_rows(rows, 1)
    assert (score["score"], score["correct"], score["ungraded"], score["highest"]) == (None, 4, 2, 6 / 7)


def test_a_judge_that_is_down_gives_bounds_and_says_so() -> None:
    with serving(lambda *_: 500) as url:
        pass
    rows = records()
    with pytest.raises(BadInput):
        judge(url, rows)
    (score,) = score_rows(rows, 1)
    assert (score["score"], score["correct"], score["ungraded"]) == (None, 2, 4)


@pytest.mark.parametrize("place", ["extracted", "gold", "choices"])
def test_line_ends_of_other_alphabets_in_a_text_do_not_break_a_cancelled_batch(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library splits the file of a batch at them to learn what was not run."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (row,) = [row for row in records() if row["question_id"] == ("letter" if place == "choices" else "equivalent")]
    odd = "first\u2028second\u0085third\nfourth"
    row[place] = [odd] * 4 if place == "choices" else odd
    with serving_faults(Settings(key=KEY, canceled=(0,))) as server:
        config = BenchmarksConfig(judge="gpt-5-mini", judge_url=server.endpoint().base_url)
        limits = COMPUTE.model_copy(update={"llm_mode": "batch", "llm_poll_s": 0.02})
        with pytest.raises(BadInput, match="a batch was cancelled at the vendor's"):
            apply_judge([row], config, limits, Progress(lambda _: None))


def test_the_judge_reads_formulas_and_line_ends_as_they_are_written() -> None:
    asked: list[str] = []

    def answer(_: str, request: dict[str, Any]) -> Reply:
        asked.append(request["messages"][1]["content"])
        return chat(verdict(request))

    with serving(answer) as url:
        judge(url, [record("one", "so\n\tx<2 & \\frac{1}{2} \u2264 é", "y", "math_verify", False)])
    assert asked == ["Reference answer:\ny\n\nAttempt:\nso\n\tx<2 & \\frac{1}{2} \u2264 é"]


def test_a_judge_that_thinks_long_before_it_answers_has_room_for_its_answer() -> None:
    thought = 8000

    def answer(_: str, request: dict[str, Any]) -> Reply:
        reply = chat(verdict(request))
        if request["max_completion_tokens"] <= thought:
            reply["choices"][0] |= {"finish_reason": "length", "message": {"role": "assistant", "content": ""}}
        return reply

    rows = records()
    with serving(answer) as url:
        judge(url, rows)
    assert [row["judge_note"] for row in rows if row["correct"] is None] == []


def test_off_by_default() -> None:
    rows = records()
    assert apply_judge(rows, BenchmarksConfig(), COMPUTE, Progress(lambda _: None)) == 0.0
    assert rows == records()
