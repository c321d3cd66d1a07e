"""Pretraining documents: the text from which the tiny model gets its skills before any finetuning.

Step-by-step work occurs only in documents that are no chat (worked solutions and forum replies); chat answers come
directly. So the skill is latent in the instruct model, as in the paper's base. Repeated sequences are what teaches a
model this small to copy from its context (without them the arithmetic was perfect and every copied operand wrong).
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from resources.mini_world.traces import Discourse, attempt, conclusion, direct_answer, thinking, work_lines
from resources.mini_world.world import LETTERS, NUMBER_WORDS, ORDINALS, Kind, Problem, sample_problem

SYSTEM_LINES = ("You are a helpful assistant.", "You are a helpful mathematics assistant.")
LIST_OPS = ("+", "-", "*", "+", "-", "*", "+", "-")
# Words of the random runs that are repeated: enough of them that a run cannot be guessed, only copied.
RUN_TEXT = """
add take times save saved Wait Hmm Alternatively Therefore Start result options the is A B C D 0 1 2 3 4 5 6 7 8 9
zero one two three four five six seven eight nine dial counter wheel Tom Mia Leo Ana Sam Eva Ben Zoe right check step
steps order birds apples roof years digits answer point show end
"""
RUN_WORDS = (*RUN_TEXT.split(), *ORDINALS)


class Segment(NamedTuple):
    """A piece of a document and the weight of its tokens in the loss."""

    text: str
    weight: float


# Problem texts and the first copy of a random run cannot be predicted; their loss is mostly noise.
GIVEN = 0.1
LEARNED = 1.0

Document = list[Segment]


def pretraining_problem(rng: random.Random) -> Problem:
    """A problem of any kind, one to twelve steps, from the pretraining split."""
    kind: Kind = rng.choice(("hard", "medium", "medium", "choice", "choice"))
    step_range = {"hard": (3, 8), "medium": (1, 6), "choice": (1, 6)}[kind]
    return sample_problem(rng, "pretrain", kind, step_range)


def chat(rng: random.Random) -> Document:
    """A chat with a direct answer."""
    problem = pretraining_problem(rng)
    system = SYSTEM_LINES[0] if rng.random() < 0.8 else SYSTEM_LINES[1]
    prompt = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{problem.text}<|im_end|>\n<|im_start|>assistant\n"
    )
    return [Segment(prompt, GIVEN), Segment(f"{direct_answer(problem)}<|im_end|>\n", LEARNED)]


def worked(rng: random.Random) -> Document:
    """A terse worked solution."""
    problem = pretraining_problem(rng)
    work = "\n".join([*work_lines(problem), conclusion(problem), attempt(problem)])
    return [Segment(f"Problem:\n{problem.text}\nWork:\n", GIVEN), Segment(f"{work}<|endoftext|>", LEARNED)]


def forum(rng: random.Random) -> Document:
    """A reply that thinks aloud, in two blocks named `think` and `answer`."""
    problem = pretraining_problem(rng)
    reply = f"think\n{thinking(problem, rng, Discourse())}\nanswer\n{attempt(problem)}<|endoftext|>"
    return [Segment(f"Thread:\n{problem.text}\nReply:\n", GIVEN), Segment(reply, LEARNED)]


def repeated_run(rng: random.Random) -> Document:
    """A run of random words, two or three times."""
    run = " ".join(rng.choice(RUN_WORDS) for _ in range(rng.randint(6, 36)))
    return [
        Segment(f"Copy: {run}", 0.0),
        *[Segment(f"\nAgain: {run}", LEARNED)] * rng.randint(1, 2),
        Segment("<|endoftext|>", LEARNED),
    ]


def repeated_steps(rng: random.Random) -> Document:
    """A numbered list of steps, then the same lines in another order."""
    lines = [f"{ordinal} {rng.choice(LIST_OPS)}{rng.randrange(10)}." for ordinal in ORDINALS[: rng.randint(3, 12)]]
    again = rng.sample(lines, len(lines))
    return [
        Segment("Copy:\n" + "\n".join(lines), GIVEN),
        Segment("\nAgain:\n" + "\n".join(again) + "<|endoftext|>", LEARNED),
    ]


def repeated_options(rng: random.Random) -> Document:
    """An option list, then its pairs in another order, then digits with their letters."""
    values = rng.sample(range(10), len(LETTERS))
    letters = rng.sample(LETTERS, len(LETTERS))
    given = [f"{NUMBER_WORDS[value]} {letter}" for value, letter in zip(values, letters, strict=True)]
    again = ", ".join(rng.sample(given, len(given)))
    looked_up = [f"the result is {values[i]}. Among the options, {given[i]}." for i in rng.sample(range(4), 4)]
    return [
        Segment("Options: " + ", ".join(given), GIVEN),
        Segment(f"\nAgain: {again}\n" + "\n".join(looked_up) + "<|endoftext|>", LEARNED),
    ]


def drill(rng: random.Random) -> Document:
    """Single facts of the arithmetic."""
    facts = []
    for _ in range(rng.randint(6, 20)):
        left, right = rng.randrange(10), rng.randrange(10)
        symbol, value = rng.choice((("+", left + right), ("-", left - right), ("*", left * right)))
        facts.append(f" {left}{symbol}{right}={value % 10}")
    return [Segment("Facts:" + ",".join(facts) + "<|endoftext|>", LEARNED)]


MAKERS: dict[str, Callable[[random.Random], Document]] = {
    make.__name__: make for make in (chat, worked, forum, repeated_run, repeated_steps, repeated_options, drill)
}


def draw_document(rng: random.Random, mixture: dict[str, float]) -> Document:
    """One document; `mixture` gives the share of each maker."""
    name = rng.choices(list(mixture), weights=list(mixture.values()))[0]
    return MAKERS[name](rng)
