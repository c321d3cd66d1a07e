"""How long a stage will compute, from its arithmetic and from assumptions that are named: for review before it runs.

Knows no room: a room's `estimate` counts what it does, and turns it into hours here. Nothing of it was measured on a
GPU; whoever has measured a share puts it in place of the assumed one. L layers, h hidden size.
"""

from dataclasses import dataclass
from math import ceil

from resources.compute import ComputeConfig
from resources.llm.batch import MOST_REQUESTS
from resources.memory import BYTES, Architecture, Setup

PEAK_FLOPS = 989e12
"""Dense bf16 FLOP/s of one H200 (NVIDIA's data sheet)."""
DENSE_SHARE = 0.40
"""Share of it that passes over many tokens reach, recomputation counted (assumed; Llama 3 405B trained at 0.38 to
0.43: arXiv 2407.21783, table 4)."""
BANDWIDTH = 4.8e12
"""Bytes per second between one H200 and its memory (NVIDIA's data sheet)."""
BANDWIDTH_SHARE = 0.5
"""Share of it that generation reaches, which reads weights and cache again for every token (assumed)."""
ANSWER_TOKENS_PER_SECOND = 60.0
"""Of one request to a paid model (assumed)."""


@dataclass(frozen=True)
class Corpus:
    """The rollouts that all stages read."""

    rollouts: int
    tokens: int
    source: str
    """Where the two numbers come from."""

    @property
    def length(self) -> float:
        """Tokens of a mean rollout."""
        return self.tokens / self.rollouts


@dataclass(frozen=True)
class Setting(Setup):
    """What the hours of a stage on GPUs depend on."""

    corpus: Corpus


@dataclass(frozen=True)
class WorkEstimate:
    """Hours of one stage."""

    hours: float
    how: str
    """The arithmetic, with what was assumed."""

    def __add__(self, other: "WorkEstimate") -> "WorkEstimate":
        """One after the other."""
        return WorkEstimate(self.hours + other.hours, f"{self.how}; then {other.how}")


def pass_flops(sizes: Architecture, tokens: float, length: float) -> float:
    """FLOP of one forward pass without the head over rollouts of `length` tokens: 2 per weight, and causal attention.

    Attention: two products of L^2 / 2 pairs, 2 FLOP each. A backward pass for the input alone costs the same again.
    """
    per_token = 2 * sizes.layer_parameters + 2 * length * sizes.hidden_size
    return sizes.num_hidden_layers * per_token * tokens


def head_flops(sizes: Architecture, tokens: float) -> float:
    """FLOP of the logits of so many tokens."""
    return 2.0 * sizes.hidden_size * sizes.vocab_size * tokens


def dense(flops: float, gpus: int, what: str) -> WorkEstimate:
    """Time of passes over many tokens; `what`: the product in words."""
    hours = flops / (gpus * PEAK_FLOPS * DENSE_SHARE) / 3600
    speed = f"{gpus} GPUs x {PEAK_FLOPS / 1e12:.0f} TFLOP/s x {DENSE_SHARE:.0%} of it reached (assumed)"
    return WorkEstimate(hours, f"{what} = {flops:.2g} FLOP, {speed}")


def generation(sizes: Architecture, dtype: str, tokens: float, rows: int, context: float, gpus: int) -> WorkEstimate:
    """Time to generate `tokens` in all, `rows` side by side with one copy of the weights, each at `context` tokens."""
    item = BYTES[dtype]
    cache = 2 * sizes.num_hidden_layers * sizes.kv_size * item * context
    moved = sizes.parameters * item / rows + cache
    hours = tokens * moved / (gpus * BANDWIDTH * BANDWIDTH_SHARE) / 3600
    speed = f"{gpus} GPUs x {BANDWIDTH / 1e12:.1f} TB/s x {BANDWIDTH_SHARE:.0%} of it reached (assumed)"
    how = f"{tokens / 1e6:.2g} M tokens, {rows} rows at once, each moves {moved / 1e9:.2f} GB of weights and cache"
    return WorkEstimate(hours, f"{how}, {speed}")


def asking(requests: float, answer_tokens: float, compute: ComputeConfig) -> WorkEstimate:
    """Time to ask a paid model so often."""
    if compute.llm_mode == "batch":
        batches = max(1, ceil(requests / MOST_REQUESTS))
        told = f"{requests:.0f} requests in {batches} {'batch' if batches == 1 else 'batches, one behind the other'}"
        return WorkEstimate(24.0 * batches, f"{told}, up to a day each (vendors' documentation)")
    seconds = requests * answer_tokens / ANSWER_TOKENS_PER_SECOND / compute.llm_concurrency
    each = f"{answer_tokens:.0f} tokens at {ANSWER_TOKENS_PER_SECOND:.0f} tokens/s (assumed)"
    return WorkEstimate(seconds / 3600, f"{requests:.0f} requests of {each}, {compute.llm_concurrency} at once")
