"""Every claim of the paper that the report answers: what was published, where, and how near is near enough.

Nothing else in the project writes these numbers, except those of Tables 1 and 2 (`assets/benchmarks`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assets.benchmarks.config import RECOVERED

Verdict = Literal[
    "reproduced",
    "differs",
    "same pattern",
    "pattern differs",
    "undecided",
    "not comparable",
    "not bounded",
    "not measured",
]


@dataclass(frozen=True)
class Measurement:
    """A number of ours, its 95 % interval where there is one, and the asset it comes from."""

    value: float
    low: float | None
    high: float | None
    asset: str
    unbounded: bool = False
    """An interval is defined, but its ends are not and so None: the data decide nothing."""
    as_published: bool = True
    """Found by the paper's method on its benchmarks; else its number is compared with the paper's on no model."""


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper with a number or an order in it."""

    id: str
    where: str
    """Place in the paper."""
    statement: str
    published: float | None
    """The number as printed; None for a pattern, which holds when the measured value, or where it has an interval all
    of that, is above `threshold`."""
    tolerance: float = 0.0
    """Half-width around `published` that still counts as reproduced when the measurement has no interval."""
    threshold: float = 0.0
    percent: bool = False
    """Print as a share."""

    @property
    def expected(self) -> str:
        """What the paper says, as a person reads it: a number, or the bound of a pattern."""
        if self.published is not None:
            return spoken(self.published, self.percent)
        return f"above {spoken(self.threshold, self.percent)}"


LARGE = 9_999.5
"""From here on digits after the point say nothing, and four significant ones would need an exponent."""


SAE_SIZES = {"d_in": 448, "d_sae": 3584, "k": 16}
"""The paper's SAE (Section 3.2) by the names of our metrics: chosen, not found, so without a verdict."""


def spoken(value: float, percent: bool = False) -> str:
    """A number as a person reads it: four significant digits, a share in three, counts and large numbers whole."""
    if percent:
        return f"{100 * value:.3g} %"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= LARGE else f"{value:.4g}"


CLAIMS = (
    Claim(
        "adapter_share",
        "Section 2.1",
        "The adapter has less than 0.03 % of the model's parameters",
        0.000256,
        2e-6,
        percent=True,
    ),
    Claim(
        "recovery_hard",
        "Table 1",
        "Recovered gain on AIME'24 (mini world: hard)",
        RECOVERED["aime24_nofigures"],
        percent=True,
    ),
    Claim(
        "recovery_medium",
        "Table 1",
        "Recovered gain on MATH500 (mini world: medium)",
        RECOVERED["openai_math"],
        percent=True,
    ),
    Claim(
        "recovery_choice",
        "Table 1",
        "Recovered gain on GPQA-Diamond (mini world: choice)",
        RECOVERED["gpqa_diamond_openai"],
        percent=True,
    ),
    Claim(
        "recovery_least", "Abstract", "Least recovered gain of the three benchmarks", None, threshold=0.7, percent=True
    ),
    Claim(
        "mlp_over_attention_score",
        "Table 2",
        "Mean score without attention adapters minus that without MLP adapters",
        None,
        percent=True,
    ),
    Claim(
        "mlp_over_attention_kl", "Figure 3", "KL without MLP adapters over KL without attention", None, threshold=1.0
    ),
    Claim(
        "gate_strongest",
        "Figure 3b",
        "Mean KL of single gate_proj components over that of the strongest other projection",
        None,
        threshold=1.0,
    ),
    Claim("sae_live", "Section 3.2", "Latents that stay alive", 2000, 200),
    Claim("latents_monosemantic", "Section 3.2", "Monosemantic latents (class 0)", 0.62, 0.05, percent=True),
    Claim("latents_broad", "Section 3.2", "Broad but consistent latents (class 1)", 0.22, 0.05, percent=True),
    Claim("directions_monosemantic", "Figure 1", "Monosemantic adapter directions (class 0)", 0.22, 0.05, percent=True),
    Claim(
        "latents_over_directions",
        "Section 3.2",
        "Class 0 among latents minus class 0 among directions",
        None,
        percent=True,
    ),
    Claim(
        "directions_over_neurons",
        "Figure 1",
        "Class 0 among directions minus class 0 among neurons",
        None,
        threshold=-0.02,
        percent=True,
    ),
)
"""A difference or ratio without a published number is a pattern: it holds above its threshold."""


def verdict(claim: Claim, measured: Measurement | None, comparable: bool) -> Verdict:
    """What our measurement says of the claim; `comparable`: it was made on the paper's own model."""
    if measured is None:
        return "not measured"
    comparable = comparable and measured.as_published
    if claim.published is not None and not comparable:
        return "not comparable"
    if measured.unbounded:
        return "not bounded"
    if claim.published is None:
        low, high = (measured.value if end is None else end for end in (measured.low, measured.high))
        if low <= claim.threshold < high:  # with AIME's 30 questions an exact repetition lands on either side
            return "undecided"
        if comparable:
            return "reproduced" if low > claim.threshold else "differs"
        return "same pattern" if low > claim.threshold else "pattern differs"
    low = measured.value - claim.tolerance if measured.low is None else measured.low
    high = measured.value + claim.tolerance if measured.high is None else measured.high
    return "reproduced" if low <= claim.published <= high else "differs"


def as_read(row: Mapping[str, Any]) -> dict[str, str]:
    """A claim's row with its numbers as a person reads them."""
    numbers = {name: row[name] for name in ("measured", "low", "high")}
    absent = "not bounded" if row["unbounded"] else "–"
    shown = {name: absent if value is None else spoken(value, row["percent"]) for name, value in numbers.items()}
    return (
        {name: row[name] for name in ("id", "verdict", "expected")}
        | shown
        | {name: row[name] for name in ("where", "statement")}
    )
