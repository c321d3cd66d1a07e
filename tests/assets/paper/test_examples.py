"""The units shown in the report: each with the score of its own explanation."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.interpretations.artifact import INTERPRETATIONS_FILE, INTERPRETATIONS_SCHEMA, SCORES_FILE, SCORES_SCHEMA
from assets.paper.examples import examples
from tests.assets.interpretations.conftest import Explained


def test_an_llms_words_stand_beside_the_judges_score_and_not_the_predicates(
    explained: Explained,
    tmp_path: Path,
) -> None:
    rows = pq.read_table(explained.interpretations / INTERPRETATIONS_FILE).to_pylist()
    llm = {"explainer": "openai/x", "explanation": "a word", "label": 1, "status": "ok", "stability": 0.5}
    said = [row | llm for row in rows if row["unit"] == "latent:4"]
    pq.write_table(pa.Table.from_pylist(said, schema=INTERPRETATIONS_SCHEMA), tmp_path / INTERPRETATIONS_FILE)
    base = {"unit": "latent:4", "kind": "latent", "method": "detection", "status": "ok", "ci_high": 1.0}
    scores = [
        base | {"explainer": "openai/x", "judge": "openai/x", "balanced_accuracy": 0.6, "ci_low": 0.5},
        base | {"explainer": "statistical", "judge": "statistical", "balanced_accuracy": 1.0, "ci_low": 0.9},
    ]
    pq.write_table(pa.Table.from_pylist(scores, schema=SCORES_SCHEMA), tmp_path / SCORES_FILE)
    (shown,) = examples(
        {
            "interpretations": tmp_path,
            "interpretation_scores": tmp_path,
            "max_activating_contexts": explained.contexts,
            "s1k_dataset": explained.dataset,
        }
    )
    assert (shown["explanation"], shown["explainer"], shown["label"]) == ("a word", "openai/x", 1)
    assert (round(shown["balanced_accuracy"], 6), shown["stability"]) == (0.6, 0.5)
