"""Traces: right at every equation that is not taken back, and markers only where the state calls for them."""

import random
import re

from resources.mini_world.traces import Discourse, attempt, direct_answer, thinking, work_lines
from resources.mini_world.world import KINDS, Problem, Step, sample_problem

SILENT = Discourse(slip=0, wait_below_zero=0, hmm=0, alternatively=0, check=0)
ALWAYS = Discourse(slip=0, wait_below_zero=1, hmm=1, alternatively=1, check=0)
EQUATION = re.compile(r"(\d)([-+*])(\d)=(\d)(\. Wait, that is not right)?")


def build_problem(*steps: Step, options: tuple[int, ...] | None = None) -> Problem:
    return Problem(4, steps, "Start with 4.", "What is the result?", options=options)


def computed(left: str, symbol: str, right: str) -> int:
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b}[symbol] % 10


def test_a_silent_trace_restates_computes_and_concludes() -> None:
    problem = build_problem(Step("add", 8), Step("save"), Step("take", 5), Step("add saved"), options=(9, 1, 3, 4))
    # 4+8=12 -> 2, saved; 2-5=-3 -> 7; 7+2=9, which is option A
    assert thinking(problem, random.Random(0), SILENT).split("\n")[1:] == [
        "Start=4.",
        "First +8: 4+8=2.",
        "Second save: saved 2.",
        "Third -5: 2-5=7.",
        "Fourth +saved: saved 2, 7+2=9.",
        "Therefore, the result is 9. Among the options, nine A.",
    ]


def test_a_digit_read_from_elsewhere_is_recalled_before_it_is_used() -> None:
    lines = work_lines(build_problem(Step("add", 1), Step("add start")))
    assert lines == ["Start=4.", "First +1: 4+1=5.", "Second +Start: Start 4, 5+4=9."]


def test_wait_stands_before_a_subtraction_below_zero_only() -> None:
    lines = work_lines(build_problem(Step("take", 5), Step("take", 3)), random.Random(0), ALWAYS)
    assert lines[1:] == ["First -5: Wait, this goes negative. 4-5=9.", "Second -3: 9-3=6."]


def test_hmm_and_alternatively_stand_at_a_product_past_nine_only() -> None:
    lines = work_lines(build_problem(Step("times", 2), Step("times", 3)), random.Random(0), ALWAYS)
    assert lines[1:] == ["First *2: 4*2=8.", "Second *3: Hmm, 8*3=4. Alternatively, 3*8=4."]


def test_a_slip_is_off_by_one_and_taken_back_at_once() -> None:
    slips = Discourse(slip=1, wait_below_zero=0, hmm=0, alternatively=0, check=0)
    lines = work_lines(build_problem(Step("add", 8)), random.Random(0), slips)
    assert lines[1] in {f"First +8: 4+8={wrong}. Wait, that is not right. 4+8=2." for wrong in (1, 3)}


def test_every_equation_that_is_not_taken_back_is_right_and_traces_end_in_the_answer() -> None:
    rng = random.Random(1)
    taken_back = 0
    for index in range(300):
        kind = KINDS[index % 3]
        problem = sample_problem(rng, "s1k_mini", kind)
        trace = thinking(problem, rng, Discourse())
        for left, symbol, right, value, slip in EQUATION.findall(trace):
            assert (int(value) == computed(left, symbol, right)) == (slip == "")
            taken_back += slip != ""
        ending = f"{problem.answer}." if kind == "choice" else f"Therefore, the result is {problem.value}."
        assert trace.endswith(ending)
    assert taken_back > 20


def test_answers_are_boxed_so_that_a_string_grader_reads_them() -> None:
    problem = build_problem(Step("add", 3), options=(7, 1, 2, 3))
    assert attempt(problem) == r"Answer: \boxed{A}"
    assert direct_answer(problem) == r"The answer is \boxed{A}."
