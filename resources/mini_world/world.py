"""Verifiable problems on one decimal digit: a start, numbered steps, a question.

Every value is a digit and arithmetic wraps at 10, so a problem is hard only because its steps must be done in order.
Which split a problem belongs to is decided by a hash of its start and steps alone: no story, option or distractor can
carry a problem from one split into another.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

BASE = 10
LETTERS = ("A", "B", "C", "D")
# Option values are words that stand nowhere else in a problem, so that the letter is found by a one-token match.
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# A step's label is one token which stands nowhere else, so that "which step next" is a one-token match too.
FIRST_SIX = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth")
ORDINALS = (*FIRST_SIX, "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh", "Twelfth")
NAMES = ("Tom", "Mia", "Leo", "Ana", "Sam", "Eva", "Ben", "Zoe")
STORIES = (
    ("{name} sets a dial to {start}.", "What does the dial show?"),
    ("Start with {start}.", "What is the result?"),
    ("{name} has a counter at {start}.", "What does the counter show at the end?"),
    ("A wheel of ten digits points to {start}.", "Where does the wheel point at the end?"),
)
DISTRACTORS = (
    "{name} is {digit} years old.",
    "There are {digit} birds on the roof.",
    "{name} bought {digit} apples.",
)

Op = Literal["add", "take", "times", "save", "add saved", "take saved", "add start", "take start"]
Kind = Literal["hard", "medium", "choice"]
Split = Literal["pretrain", "s1k_mini", "hard", "medium", "choice"]

KINDS: tuple[Kind, ...] = ("hard", "medium", "choice")
SYMBOLS: dict[Op, str] = {
    "add": "+",
    "take": "-",
    "times": "*",
    "add saved": "+",
    "take saved": "-",
    "add start": "+",
    "take start": "-",
}
# First and last number of steps of each kind.
STEPS: dict[Kind, tuple[int, int]] = {"hard": (6, 9), "medium": (3, 5), "choice": (3, 6)}
# Share of medium and choice problems with a step that reads the start again, which no pretraining problem has: what
# finetuning must teach, not only elicit. (In the hard set that is the ninth step: pretraining stops at eight.)
READS_START = 0.3
# Percent of all problems, by hash bucket 0..99.
SPLIT_BUCKETS: dict[Split, range] = {
    "pretrain": range(0, 70),
    "s1k_mini": range(70, 85),
    "hard": range(85, 90),
    "medium": range(90, 95),
    "choice": range(95, 100),
}


@dataclass(frozen=True)
class Step:
    """One numbered instruction; `operand` is None where the digit stands elsewhere."""

    op: Op
    operand: int | None = None

    @property
    def text(self) -> str:
        """The instruction as it stands in the problem and, again, in a trace."""
        if self.op == "save":
            return self.op
        return SYMBOLS[self.op] + (self.source if self.operand is None else str(self.operand))

    @property
    def source(self) -> str:
        """Where the step's right-hand digit stands when it is not in the step: `saved` or `Start`."""
        return "Start" if self.op.endswith("start") else "saved"


@dataclass(frozen=True)
class State:
    """The digit after a step, with what was computed to get it."""

    step: Step
    left: int
    right: int | None
    value: int

    @property
    def wraps(self) -> bool:
        """Whether the plain result leaves 0..9, the hard case of a step."""
        return self.right is not None and not 0 <= plain_result(self.step.op, self.left, self.right) < BASE


@dataclass(frozen=True)
class Problem:
    """A start, its steps and the words around them; `options` are the four values behind the letters."""

    start: int
    steps: tuple[Step, ...]
    opening: str
    question: str
    distractor: str | None = None
    options: tuple[int, ...] | None = None

    @property
    def canonical(self) -> str:
        """What makes two problems the same problem."""
        return ";".join([str(self.start), *(step.text for step in self.steps)])

    @property
    def text(self) -> str:
        """The user's turn."""
        lines = [self.opening]
        if self.distractor is not None:
            lines.append(self.distractor)
        lines += [f"{ordinal} {step.text}." for ordinal, step in zip(ORDINALS, self.steps, strict=False)]
        lines.append(self.question)
        if self.options is not None:
            lines.append(f"Options: {options_text(self.options)}")
        return "\n".join(lines)

    @property
    def states(self) -> tuple[State, ...]:
        """The digit after every step."""
        return tuple(run(self.start, self.steps))

    @property
    def value(self) -> int:
        """The digit after the last step."""
        return self.states[-1].value

    @property
    def answer(self) -> str:
        """What a grader expects: the digit, or the letter of the option which has it."""
        return str(self.value) if self.options is None else LETTERS[self.options.index(self.value)]


def options_text(options: tuple[int, ...]) -> str:
    """The option list of a multiple-choice problem, e.g. `seven A, two B, zero C, five D`."""
    return ", ".join(f"{NUMBER_WORDS[value]} {letter}" for value, letter in zip(options, LETTERS, strict=True))


def plain_result(op: Op, left: int, right: int) -> int:
    """The result before wrapping."""
    return {"+": left + right, "-": left - right, "*": left * right}[SYMBOLS[op]]


def run(start: int, steps: tuple[Step, ...]) -> list[State]:
    """Do the steps one after another."""
    states: list[State] = []
    value, saved = start, None
    for step in steps:
        if step.op == "save":
            saved = value
            states.append(State(step, value, None, value))
            continue
        right = {"saved": saved, "Start": start}[step.source] if step.operand is None else step.operand
        if right is None:
            raise ValueError(f"step '{step.text}' reads a saved digit before any was saved")
        left, value = value, plain_result(step.op, value, right) % BASE
        states.append(State(step, left, right, value))
    return states


def split_of(problem: Problem) -> Split:
    """The one split in which this problem may occur."""
    bucket = int.from_bytes(hashlib.sha256(problem.canonical.encode()).digest()[:8], "big") % 100
    return next(split for split, buckets in SPLIT_BUCKETS.items() if bucket in buckets)


def sample_problem(rng: random.Random, split: Split, kind: Kind, step_range: tuple[int, int] | None = None) -> Problem:
    """A problem of this kind which belongs to this split."""
    first, last = step_range or STEPS[kind]
    may_read_start = split != "pretrain" and kind != "hard"
    while True:
        problem = _draw(rng, kind, rng.randint(first, last), may_read_start=may_read_start)
        if split_of(problem) == split:
            return problem


def _draw(rng: random.Random, kind: Kind, num_steps: int, *, may_read_start: bool) -> Problem:
    start = rng.randrange(BASE)
    steps = _draw_steps(rng, num_steps, with_saved=kind == "hard" and num_steps >= 3)
    if may_read_start and rng.random() < READS_START:
        place = rng.randrange(1, num_steps)
        steps = (*steps[:place], Step(rng.choice(("add start", "take start"))), *steps[place + 1 :])
    opening, question = rng.choice(STORIES)
    distractor = None
    if kind == "hard" and rng.random() < 0.5:
        distractor = rng.choice(DISTRACTORS).format(name=rng.choice(NAMES), digit=rng.randrange(BASE))
    options = _draw_options(rng, run(start, steps)) if kind == "choice" else None
    return Problem(start, steps, opening.format(name=rng.choice(NAMES), start=start), question, distractor, options)


def _draw_steps(rng: random.Random, num_steps: int, *, with_saved: bool) -> tuple[Step, ...]:
    steps = [_draw_step(rng) for _ in range(num_steps)]
    if with_saved:
        save, use = sorted(rng.sample(range(num_steps), 2))
        steps[save] = Step("save")
        steps[use] = Step(rng.choice(("add saved", "take saved")))
    return tuple(steps)


def _draw_step(rng: random.Random) -> Step:
    op: Op = rng.choice(("add", "add", "take", "take", "times"))
    # times 0, 5 and even factors lose information: a long problem would end in 0 whatever came before.
    return Step(op, rng.choice((2, 3, 3, 4, 6, 7, 7, 8, 9, 9)) if op == "times" else rng.randint(1, BASE - 1))


def _draw_options(rng: random.Random, states: list[State]) -> tuple[int, ...]:
    """The answer among three other digits; digits met on the way come first, as the tempting wrong answers."""
    answer = states[-1].value
    met = {state.value for state in states} - {answer}
    rest = sorted(set(range(BASE)) - met - {answer})
    wrong = rng.sample(sorted(met), min(2, len(met)))
    wrong += rng.sample(rest, 3 - len(wrong))
    options = [answer, *wrong]
    rng.shuffle(options)
    return tuple(options)
