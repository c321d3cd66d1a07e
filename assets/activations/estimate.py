"""Hours of the two captures: for `lorascope plan --explain`."""

from resources.work import Setting, WorkEstimate, dense, pass_flops


def capture_hours(on: Setting) -> WorkEstimate:
    """One forward pass without the head."""
    tokens = on.corpus.tokens
    return dense(pass_flops(on.sizes, tokens, on.corpus.length), on.gpus, f"{tokens} tokens, one forward pass")
