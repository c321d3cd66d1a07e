"""Extraction and grading against tables written by hand: every rule of s1 and every known failure."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from assets.benchmarks.extract import Extracted, answer_part, extract, last_boxed
from assets.benchmarks.grade import Grade, GradedBy, grade_choice, grade_math, letter_of
from resources.chat import ANSWER, START

HERE = Path(__file__).parent
MATH = yaml.safe_load((HERE / "math_cases.yaml").read_text())
CHOICE = yaml.safe_load((HERE / "choice_cases.yaml").read_text())


def test_the_tables_hold_at_least_120_cases() -> None:
    assert len(MATH) + len(CHOICE) >= 120


@pytest.mark.parametrize(("output", "gold", "text", "rule", "verdict"), MATH)
def test_math_case(output: str, gold: str, text: str, rule: str, verdict: str) -> None:
    found = extract(output)
    assert (found.text, found.rule) == (text, rule)
    assert grade_math(found, gold).correct is (verdict == "right")


@pytest.mark.parametrize(("output", "gold", "choices", "letter", "as_s1", "strict"), CHOICE)
def test_choice_case(output: str, gold: str, choices: list[str], letter: str, as_s1: str, strict: str) -> None:
    found = extract(output)
    assert (letter_of(found.text, tuple(choices)) or "none") == letter
    grade = grade_choice(found, gold, tuple(choices))
    assert grade.correct is (as_s1 == "right")
    assert grade.strict is (strict == "right")


@pytest.mark.parametrize(
    ("output", "gold", "by", "right"),
    [
        ("\\boxed{007}", "7", "integer", True),
        ("\\boxed{8}", "7", "integer", False),
        ("\\boxed{X + Y}", "x+y", "text", True),
        ("\\boxed{4210_5}", "4210_7", "text", False),
        ("\\boxed{4210_5}", "4210", "math_verify", True),
        ("\\boxed{4210}", "4210_5", "math_verify", True),
        ("\\boxed{0.5}", "\\frac12", "math_verify", True),
        ("", "7", "none", False),
    ],
)
def test_a_grade_says_which_rule_gave_it(output: str, gold: str, by: GradedBy, right: bool) -> None:
    assert grade_math(extract(output), gold) == Grade(right, right, by)


@pytest.mark.parametrize(("answer", "by"), [("B", "letter"), ("(B)", "choice"), ("10 eV", "choice"), ("?", "default")])
def test_a_grade_of_a_choice_says_whether_a_letter_alone_was_given(answer: str, by: str) -> None:
    assert grade_choice(Extracted(answer, "boxed"), "B", ("5 eV", "10 eV")).by == by


@given(st.text(st.characters(codec="utf-8", exclude_characters="{}\\$"), max_size=40), st.text(max_size=40))
def test_a_box_is_found_whatever_stands_before_it(inside: str, before: str) -> None:
    before = before.replace("\\boxed ", "").replace("<|im_start|>", "")
    assert last_boxed(before + "\\boxed{" + inside + "}") == inside or "\\boxed " in before


@given(st.text(alphabet="\\boxed{}$ Answer:<|im_start|>\n1aA/^_", max_size=60))
def test_no_output_makes_extraction_fail(output: str) -> None:
    found = extract(output)
    assert (found.rule == "empty") <= (found.text == "")
    assert not found.text.startswith(" ")


def test_an_answer_of_more_digits_than_python_reads_is_graded() -> None:
    for output in ("7" * 30_000, f"\\boxed{{{'0' * 30_000}7}}"):
        assert grade_math(extract(output), "7").by == "integer"
        assert grade_math(extract(output), "7").correct == ("boxed" in output)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("repeated", [".", "\n", " -", "answer is", "answer: \n"])
def test_a_letter_is_looked_for_in_an_answer_that_repeats_itself_to_its_end(repeated: str) -> None:
    assert letter_of(f"So the answer is{repeated * 30_000}", ()) is None
    assert letter_of(f"So the answer is{repeated * 30_000} C", ()) == "C"


def test_a_box_beats_an_answer_line_and_both_beat_the_rest() -> None:
    assert extract("Answer: 1 \\boxed{2}").rule == "boxed"
    assert extract("so Answer: 1").rule == "answer"
    assert extract("so 1").rule == "whole"


def test_of_several_marks_of_a_kind_the_last_one_counts() -> None:
    assert answer_part(f"{ANSWER}one{ANSWER}two{ANSWER}three") == "three"
    assert answer_part(f"{START}think\none{START}think\ntwo\nthree") == "two\nthree"
    assert last_boxed(r"\boxed 1$ or \boxed 2$ or \boxed {3}, worth 4$ or 5$") == "3"
    assert last_boxed(r"\boxed{1} or \boxed{2}") == "2"


def test_a_mark_without_a_brace_is_no_box() -> None:
    assert last_boxed(r"the answer is \boxed5") is None
    assert extract(r"Answer: \boxed5").rule == "answer"
