"""Reasoning traces in the mini world's words, with the discourse markers tied to the state of the work.

"Wait" follows a real slip or announces a subtraction that goes below zero, "Hmm" stands before a product past 9,
"Alternatively" does such a product the other way round, "Therefore" closes the work. So a direction or a feature that
fires on one of these words has a state to stand for.
"""

import random
from dataclasses import dataclass

from resources.mini_world.world import BASE, NUMBER_WORDS, ORDINALS, SYMBOLS, Problem, State

OPENINGS = (
    "Okay, let me work through this step by step.",
    "Let me do each step in turn.",
    "I need to follow the steps in order.",
)


@dataclass(frozen=True)
class Discourse:
    """How often each marker stands where its state allows it."""

    slip: float = 0.08
    wait_below_zero: float = 0.6
    hmm: float = 0.7
    alternatively: float = 0.3
    check: float = 0.08


def thinking(problem: Problem, rng: random.Random, discourse: Discourse) -> str:
    """The trace: every step restated, then computed, then the conclusion."""
    lines = [rng.choice(OPENINGS), *work_lines(problem, rng, discourse), conclusion(problem)]
    return "\n".join(lines)


def work_lines(problem: Problem, rng: random.Random | None = None, discourse: Discourse | None = None) -> list[str]:
    """The computed steps; without `rng` and `discourse` the bare ones."""
    lines = [f"Start={problem.start}."]
    for ordinal, state in zip(ORDINALS, problem.states, strict=False):
        lines.append(f"{ordinal} {state.step.text}: {_work(state, rng, discourse)}.")
    return lines


def conclusion(problem: Problem) -> str:
    """The closing sentence of a trace."""
    text = f"Therefore, the result is {problem.value}."
    if problem.options is not None:
        text += f" Among the options, {NUMBER_WORDS[problem.value]} {problem.answer}."
    return text


def attempt(problem: Problem) -> str:
    """What stands in the answer block."""
    return f"Answer: \\boxed{{{problem.answer}}}"


def direct_answer(problem: Problem) -> str:
    """The base model's reply: no work shown."""
    return f"The answer is \\boxed{{{problem.answer}}}."


def _work(state: State, rng: random.Random | None, discourse: Discourse | None) -> str:
    if state.step.op == "save":
        return f"saved {state.value}"
    recall = f"{state.step.source} {state.right}, " if state.step.operand is None else ""
    if rng is None or discourse is None:
        return recall + equation(state)
    return recall + _before(state, rng, discourse) + equation_with_checks(state, rng, discourse)


def equation(state: State, value: int | None = None) -> str:
    """`left op right=value`, the true value unless another is given."""
    shown = state.value if value is None else value
    return f"{state.left}{SYMBOLS[state.step.op]}{state.right}={shown}"


def _before(state: State, rng: random.Random, discourse: Discourse) -> str:
    if not state.wraps:
        return ""
    symbol = SYMBOLS[state.step.op]
    if symbol == "*" and rng.random() < discourse.hmm:
        return "Hmm, "
    if symbol == "-" and rng.random() < discourse.wait_below_zero:
        return "Wait, this goes negative. "
    return ""


def equation_with_checks(state: State, rng: random.Random, discourse: Discourse) -> str:
    """The equation, a corrected slip where one happens, or a check of a hard step."""
    if not state.wraps:
        return equation(state)
    if rng.random() < discourse.slip:
        wrong = (state.value + rng.choice((-1, 1))) % BASE
        return f"{equation(state, wrong)}. Wait, that is not right. {equation(state)}"
    if SYMBOLS[state.step.op] == "*" and rng.random() < discourse.alternatively:
        return f"{equation(state)}. Alternatively, {state.right}*{state.left}={state.value}"
    if rng.random() < discourse.check:
        return f"{equation(state)}. Let me check. {equation(state)}. That is right"
    return equation(state)
