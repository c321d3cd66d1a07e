"""Time per unit of the offline explainer and of its scores, on one core, against the issue's 15 ms.

Run: OMP_NUM_THREADS=1 nice -n 5 python -m bench.statistical [units]
"""

import sys
import tempfile
import time
from pathlib import Path

from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from assets.interpretations.corpus import Corpus
from assets.interpretations.evidence import read_evidence
from assets.interpretations.statistical import StatisticalExplainer
from assets.interpretations.token_detection import score_predicate
from tests.assets.interpretations.world import (
    World,
    build_world,
    digit_rule,
    noise_rule,
    token_rule,
    write_contexts,
    write_dataset,
)


def world(units: int) -> World:
    """1000 rollouts of 200 tokens; a third of the units fire by token, a third by class, a third at random."""
    made = build_world(1000, 200)
    rules = [token_rule(" Wait"), digit_rule, noise_rule(0.02, 1)]
    made.units = {f"latent:{number}": rules[number % 3] for number in range(units)}
    return made


def main() -> None:
    """Bench and print."""
    units = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    folder = Path(tempfile.mkdtemp())
    made = world(units)
    write_dataset(made, folder / "d")
    write_contexts(made, folder / "c", quantile=32, silent=32)
    knobs = InterpretationsConfig(provider="statistical")
    corpus = Corpus.open(folder / "d")
    began = time.process_time()
    evidence = list(read_evidence(folder / "c", corpus, knobs))
    read = time.process_time() - began
    explainer = StatisticalExplainer(corpus, knobs)
    began = time.process_time()
    explainer.build_null([each.peak_n[each.shown(knobs.contexts_shown)] for each in evidence])
    null = time.process_time() - began
    began = time.process_time()
    verdicts = [explainer.explain(each) for each in evidence]
    explained = time.process_time() - began
    began = time.process_time()
    for each, verdict in zip(evidence, verdicts, strict=True):
        if verdict.predicate is not None:
            score_predicate(each, verdict.predicate, corpus, ScoresConfig(), knobs.seed)
    scored = time.process_time() - began
    print(f"{units} units, {len(corpus)} tokens; CPU milliseconds per unit, limit 15:")
    print(f"read {1000 * read / units:.2f}  explain {1000 * explained / units:.2f}  score {1000 * scored / units:.2f}")
    print(f"null, once: {1000 * null:.0f} ms for {knobs.null_units} sets")


if __name__ == "__main__":
    main()
