"""What a continuation shows: backtracking words, the boxed answer, and rates with 95 % intervals."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from resources.intervals import ratio, ratio_interval, wilson

_PLAIN = re.compile(r"-?\d+(\.\d+)?")


def count_words(text: str, words: Sequence[str]) -> int:
    """Whole words, in the case given; one may begin or end with a mark, as `Wait,` does.

    Chinese and Japanese have no spaces between words, so that there any occurrence counts.
    """
    return len(re.findall("|".join(map(_whole, words)), text)) if words else 0


def _whole(word: str) -> str:
    before, after = (
        r"\b" if edge.isalnum() and east_asian_width(edge) not in "WF" else "" for edge in (word[:1], word[-1:])
    )
    return f"{before}{re.escape(word)}{after}"


def boxed(text: str) -> str | None:
    """The content of the last closed `\\boxed{...}`, braces balanced, outer space removed."""
    for start in reversed([found.end() for found in re.finditer(r"\\boxed{", text)]):
        depth = 1
        for i, symbol in enumerate(text[start:], start):
            depth += (symbol == "{") - (symbol == "}")
            if depth == 0:
                return text[start:i].strip()
    return None


def is_correct(text: str, solution: str) -> bool | None:
    """Whether the boxed answer is the solution's boxed answer, or the whole solution where it has no box.

    None without a solution. Numbers and words are compared as they stand, other mathematics by math-verify.
    """
    wanted = boxed(solution) or solution.strip()
    if not wanted:
        return None
    answer = boxed(text)
    if answer is None or answer == wanted:
        return answer == wanted
    if all(_PLAIN.fullmatch(side) for side in (answer, wanted)):
        return float(answer) == float(wanted)
    from math_verify import parse, verify

    return bool(verify(parse(f"${wanted}$"), parse(f"${answer}$")))


@dataclass(frozen=True)
class Continuation:
    """One continuation, read."""

    rollout_id: int
    n_tokens: int
    n_backtracking: int
    correct: bool | None
    truncated: bool


def summarise(found: Sequence[Continuation]) -> dict[str, float | int | None]:
    """Rates with intervals: problems are the clusters, so that samples of one problem do not count as independent."""
    by_problem: dict[int, list[Continuation]] = {}
    for c in found:
        by_problem.setdefault(c.rollout_id, []).append(c)
    problems = by_problem.values()
    words = [100 * sum(c.n_backtracking for c in mine) for mine in problems]
    tokens = [sum(c.n_tokens for c in mine) for mine in problems]
    return {
        **_interval("backtracking", words, tokens),
        **_interval("length", tokens, [len(mine) for mine in problems]),
        **_accuracy([c for c in found if c.correct is not None]),
        "n_continuations": len(found),
        "truncated": sum(c.truncated for c in found) / len(found),
    }


def _accuracy(judged: Sequence[Continuation]) -> dict[str, float | None]:
    """Wilson with as many trials as problems: the widest that samples of one problem, fully alike, could make it."""
    if not judged:
        return dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"))
    share = sum(bool(c.correct) for c in judged) / len(judged)
    problems = len({c.rollout_id for c in judged})
    low, high = wilson(share * problems, problems)
    return {"accuracy": share, "accuracy_low": low, "accuracy_high": high}


def _interval(name: str, tops: Sequence[float], bottoms: Sequence[float]) -> dict[str, float | None]:
    found = ratio(tops, bottoms)
    low, high = ratio_interval(found, len(tops))
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}
