"""What training the dictionary holds on its GPU and how long it takes: for the launcher and `lorascope plan --explain`.

D components that enter, F latents, B tokens of a batch.
"""

from assets.sae.config import SAMPLE_TOKENS, SaeConfig
from resources import memory
from resources.components import PROJECTIONS
from resources.memory import Architecture, MemoryEstimate, Part, Setup
from resources.work import Setting, WorkEstimate, dense, head_flops, pass_flops

STEP_S = 0.002
"""Seconds of one step on a GPU. On an H200 ours takes 0.6 ms for 512 tokens and 0.75 for 4096, the authors' dense
recipe, which a baseline's is like, 1.6 and 2.4 (bench/RESULTS.md)."""


def width(sae: SaeConfig, sizes: Architecture) -> int:
    """Components that enter."""
    layers = sizes.num_hidden_layers if sae.layers is None else len(sae.layers)
    return layers * len(PROJECTIONS if sae.projections is None else sae.projections)


def held(on: Setup) -> MemoryEstimate:
    """Two dictionaries (ours and TopK's) with their moments, the states, and the model for the effect."""
    sae = on.knobs(SaeConfig)
    d = width(sae, on.sizes)
    f, batch = sae.expansion * d, sae.batch_tokens
    parts = (
        Part("dictionaries", 2 * 4 * 2 * d * f * 4, f"2 x (weight, gradient, 2 moments) x 2 x {d} x {f} x 4 bytes"),
        Part("batch", 8 * batch * f * 4, f"8 x {batch} tokens x {f} latents x 4 bytes"),
        Part("first sample", 3 * SAMPLE_TOKENS * d * 8, f"3 x {SAMPLE_TOKENS} tokens x {d} x 8 bytes"),
        Part("held-out states", sae.evaluation_tokens * d * 4, f"{sae.evaluation_tokens} tokens x {d} x 4 bytes"),
    )
    return MemoryEstimate(parts + (_effect(sae, on) if sae.effect_rollouts else ()))


def _effect(sae: SaeConfig, on: Setup) -> tuple[Part, ...]:
    """The model with the reconstruction put back: three runs' logits at once."""
    sizes, item = on.sizes, memory.BYTES[on.model.dtype]
    logits = 3 * sae.effect_tokens * sizes.vocab_size * item
    return (
        memory.weights(sizes, on.model.dtype),
        memory.passing_activations(sizes, sae.effect_tokens, item),
        Part("logits", logits, f"3 x {sae.effect_tokens} tokens x {sizes.vocab_size} x {item} bytes"),
    )


def train_hours(on: Setting) -> WorkEstimate:
    """As many steps for each trained dictionary, then three passes for the effect."""
    sae, corpus = on.knobs(SaeConfig), on.corpus
    trained = 1 + sum(name in ("topk", "jumprelu") for name in sae.baselines)
    steps = round(sae.epochs * corpus.tokens * (1 - sae.held_out_fraction) / sae.batch_tokens)
    how = f"{trained} dictionaries x {steps} steps x {STEP_S * 1000:.0f} ms"
    steps_taken = WorkEstimate(trained * steps * STEP_S / 3600, how)
    tokens = sae.effect_rollouts * min(sae.effect_tokens, corpus.length)
    flops = 3 * (pass_flops(on.sizes, tokens, sae.effect_tokens) + head_flops(on.sizes, tokens))
    return steps_taken + dense(flops, on.gpus, f"3 passes over {tokens:.0f} tokens")
