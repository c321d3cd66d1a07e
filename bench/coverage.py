"""How often the report's 95 % intervals hold the truth, by simulation: python -m bench.coverage [--draws 4000]

Answers of arms at their rates find the same questions hard (a common normal ease, correlation .64). KLs of rollouts are
lognormal, of one deviation common to all projections and one of each. A repetition draws the paper's numbers and ours
from the same rates, and asks whether ours excludes the paper's as `paper_report` would.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import norm

from assets.interpretations.intervals import balanced
from resources.intervals import clustered_share, paired_difference, ratio, ratio_interval, share_of_gain

Interval = tuple[float, float] | tuple[None, None] | None
Draw = Callable[[np.random.Generator], Interval]
SHARED, OWN = 0.8, 0.6
"""Loadings of a question's ease: common to the arms, and an arm's own."""
ROLLOUTS = 16


def answers(rates: tuple[float, ...], questions: int, rng: np.random.Generator) -> list[list[float]]:
    """0 or 1 for each arm and question."""
    ease = SHARED * rng.standard_normal(questions)
    return [list((ease + OWN * rng.standard_normal(questions) < norm.ppf(rate)) * 1.0) for rate in rates]


def kls(deviation: float, own: float, projections: int, rng: np.random.Generator) -> list[list[float]]:
    """Of each projection its KL on every rollout."""
    common = deviation * rng.standard_normal(ROLLOUTS)
    return [list(np.exp(common + own * rng.standard_normal(ROLLOUTS))) for _ in range(projections)]


def mean_kl(deviation: float) -> Draw:
    """The mean KL over rollouts."""
    return lambda rng: ratio_interval(ratio(kls(deviation, 0, 1, rng)[0], [1.0] * ROLLOUTS), ROLLOUTS)


def gate(alike: int) -> Draw:
    """gate_proj over the strongest of six others, of which some are as strong and the rest half as strong."""

    def draw(rng: np.random.Generator) -> Interval:
        mine, *others = kls(0.6, 0.3, 7, rng)
        weaker = [[kl / (1 if number < alike else 2) for kl in other] for number, other in enumerate(others)]
        found = min((ratio(mine, other) for other in weaker), key=lambda one: one.value)
        return ratio_interval(found, ROLLOUTS)

    return draw


def avg_at_k(questions: int, samples: int, ease: float, difficulty: float) -> Draw:
    """The mean of questions' shares, of which each has its own rate (beta)."""
    return lambda rng: clustered_share(list(rng.binomial(samples, rng.beta(ease, difficulty, questions)) / samples))


def accuracy(examples: int, rate: float) -> Draw:
    """Balanced accuracy over so many firing and as many quiet examples."""
    return lambda rng: balanced(*(n for _ in range(2) for n in (rng.binomial(examples, rate), examples)))[1:]


def cases() -> Iterator[tuple[str, float, Draw]]:
    """What is measured, its true value, and a draw of its interval."""
    for rates, n in (((0.95, 0.97), 30), ((0.23, 0.5), 30), ((0.5, 0.6), 100)):
        yield (
            f"difference of {rates[0]} and {rates[1]}, {n} questions",
            rates[1] - rates[0],
            lambda rng, rates=rates, n=n: paired_difference(*answers(rates, n, rng)),
        )
    for rates, n in (((0.5, 0.99, 0.99), 30), ((0.23, 0.5, 0.6), 30), ((0.1, 0.83, 0.97), 200)):
        base, part, whole = rates
        yield (
            f"recovered gain of {base}, {part} and {whole}, {n} questions",
            (part - base) / (whole - base),
            lambda rng, rates=rates, n=n: share_of_gain(*answers(rates, n, rng)),
        )
    for questions, ease, difficulty in ((30, 5, 0.15), (10, 0.07, 0.03)):
        truth = ease / (ease + difficulty)
        yield f"avg@64 of {truth:.2f}, {questions} questions", truth, avg_at_k(questions, 64, ease, difficulty)
    for deviation in (0.3, 0.6, 1.0):
        name = f"mean KL of {ROLLOUTS} rollouts whose logarithms deviate by {deviation}"
        yield name, float(np.exp(deviation**2 / 2)), mean_kl(deviation)
    for alike in (1, 6):
        yield f"gate_proj over the strongest other, {alike} of six as strong", 1.0, gate(alike)
    for examples, rate in ((4, 0.6), (4, 0.8), (4, 0.95), (20, 0.8)):
        yield f"balanced accuracy of {rate}, {examples} firing and {examples} quiet", rate, accuracy(examples, rate)


def bounded(found: Sequence[Interval]) -> list[tuple[float, float]]:
    """Those that have both ends."""
    pairs = (one for one in found if one is not None)
    return [(low, high) for low, high in pairs if low is not None and high is not None]


def held(truth: float, found: Sequence[Interval]) -> float:
    """Share of the bounded ones that hold the truth."""
    ends = bounded(found)
    return sum(low <= truth <= high for low, high in ends) / len(ends)


def repetitions(draws: int, rng: np.random.Generator) -> str:
    """Share of exact repetitions of AIME's recovered gain whose interval excludes the paper's."""
    differ = compared = 0
    for _ in range(draws):
        base, part, whole = (np.mean(arm) for arm in answers((0.23, 0.5, 0.6), 30, rng))
        ours = share_of_gain(*answers((0.23, 0.5, 0.6), 30, rng))
        if ours is not None and whole > base:
            compared += 1
            differ += not ours[0] <= (part - base) / (whole - base) <= ours[1]
    return f"{100 * differ / compared:.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print("| interval | held of 100 | bounded of 100 |\n|---|---|---|")
    for name, truth, draw in cases():
        found = [draw(rng) for _ in range(draws)]
        print(f"| {name} | {100 * held(truth, found):.0f} | {100 * len(bounded(found)) / draws:.0f} |")
    print(f"\nexact repetitions of a recovered gain of 30 questions that differ: {repetitions(draws, rng)} of 100")


if __name__ == "__main__":
    main()
