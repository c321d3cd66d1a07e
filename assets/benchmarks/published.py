"""The paper's benchmark scores as the integer counts behind them: the only place where they are written.

Each four-digit score of Tables 1 and 2 is k/n for exactly one integer k; the tables follow from the counts by rounding.
"""

from dataclasses import dataclass

QUESTIONS = {"aime24_nofigures": 30, "openai_math": 500, "gpqa_diamond_openai": 198}
"""Questions of each benchmark the paper reports."""

CORRECT = {
    "aime24_nofigures": {
        "base": 7,
        "lora": 15,
        "full_finetune": 18,
        "attention_ablated": 11,
        "mlp_ablated": 4,
    },
    "openai_math": {
        "base": 417,
        "lora": 455,
        "full_finetune": 461,
        "attention_ablated": 450,
        "mlp_ablated": 422,
    },
    "gpqa_diamond_openai": {
        "base": 97,
        "lora": 115,
        "full_finetune": 117,
        "attention_ablated": 102,
        "mlp_ablated": 100,
    },
}
"""Right answers by benchmark and arm (paper: Tables 1 and 2)."""

TITLES = {
    "aime24_nofigures": "AIME'24 no figures",
    "aime25_nofigures": "AIME'25 no figures",
    "openai_math": "MATH500",
    "gpqa_diamond_openai": "GPQA-Diamond",
    "mini_hard": "Mini hard",
    "mini_medium": "Mini medium",
    "mini_choice": "Mini choice",
}
"""How the tables call the benchmarks."""


@dataclass(frozen=True)
class Count:
    """k right answers out of n questions."""

    correct: int
    total: int

    @property
    def score(self) -> float:
        """k / n."""
        return self.correct / self.total


def published(benchmark: str, arm: str) -> Count | None:
    """What the paper reports for this arm; None when it does not."""
    correct = CORRECT.get(benchmark, {}).get(arm)
    return None if correct is None else Count(correct, QUESTIONS[benchmark])
