"""Hours of the two captures: for `lorascope plan --explain`."""

from collections.abc import Mapping

from resources.compute import ComputeConfig
from resources.memory import architecture
from resources.models import ModelConfig
from resources.section import Section
from resources.work import Corpus, WorkEstimate, dense, pass_flops


def capture_hours(
    sections: Mapping[str, Section],
    corpus: Corpus,
    _compute: ComputeConfig,
    gpus: int,
) -> WorkEstimate | None:
    """One forward pass without the head; None: model not known here."""
    model = sections["model"]
    assert isinstance(model, ModelConfig)  # the experiment's own section
    sizes = architecture(model)
    if sizes is None:
        return None
    return dense(pass_flops(sizes, corpus.tokens, corpus.length), gpus, f"{corpus.tokens} tokens, one forward pass")
