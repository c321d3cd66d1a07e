"""What the room leaves on disk: one row per unit with its explanation, and one row per unit and score."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from assets.interpretations.config import InterpretationsConfig
from resources.artifact import Artifact
from resources.columns import described

INTERPRETATIONS_FILE = "interpretations.parquet"
SCORES_FILE = "scores.parquet"
SETTINGS_FILE = "settings.json"
"""The resolved section, so that scores and categories use the same provider, split and rendering."""

CLASSES = {0: "monosemantic", 1: "broad but consistent", 2: "polysemantic"}
"""The paper's classes (B.1)."""

FAMILIES = (
    "token", "word", "class", "previous", "previous class", "next", "next class", "two before",
    "line start", "sentence start", "block", "place",
)  # fmt: skip
"""What a predicate may speak about, in the row order of `Corpus.features`."""

INTERPRETATIONS_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "unit id"),
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("explainer", pa.string(), "statistical or provider/model"),
        described("explanation", pa.string(), "what it fires on, in words"),
        described(
            "label", pa.int8(), "0 monosemantic, 1 broad but consistent, 2 polysemantic; null unless status is ok"
        ),
        described("reasoning", pa.string(), "why this class"),
        described("status", pa.string(), "ok, insufficient (too few contexts) or failed (no usable answer)"),
        described("detail", pa.string(), "why not ok, or what was left out"),
        described(
            "stability", pa.float32(), "share of answers (or halves) that agree with the row; null with one answer"
        ),
        described("contexts_shown", pa.int32(), "contexts that the explanation was made from"),
        described(
            "statistical_explanation", pa.string(), "what the statistical explainer says of the unit, whoever explained"
        ),
        described("statistical_label", pa.int8(), "its class"),
        described(
            "predicate", pa.string(), "JSON of `assets.interpretations.artifact.Predicate`; empty when there is none"
        ),
        described(
            "coverage",
            pa.float32(),
            "share of contexts on which the predicate found on the other half of the rollouts holds",
        ),
        described("p_null", pa.float32(), "share of null sets that do as well, the unit's own counted in"),
    ]
)
SCORES_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "unit id"),
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("explainer", pa.string(), "whose explanation: statistical or provider/model"),
        described("method", pa.string(), "detection, fuzzing or intruder"),
        described("judge", pa.string(), "who predicted: statistical or provider/model"),
        described(
            "target", pa.string(), "what is predicted: one token, the marked tokens of an excerpt, or a whole window"
        ),
        described(
            "balanced_accuracy",
            pa.float32(),
            "mean of sensitivity and specificity; intruder: share of right picks, where guessing gives 1/5",
        ),
        described(
            "ci_low", pa.float32(), "95 % interval of it, lower end: Wilson's, or Newcombe's from those of both rates"
        ),
        described("ci_high", pa.float32(), "upper end"),
        described(
            "sensitivity",
            pa.float32(),
            "share of the firing examples, mostly a unit's strongest contexts, that are called firing",
        ),
        described(
            "sensitivity_typical",
            pa.float32(),
            "the same of those drawn evenly from the quantiles of all tokens on which the unit fires; null with none",
        ),
        described("specificity", pa.float32(), "share of the others that are called not firing"),
        described(
            "precision_random",
            pa.float32(),
            "share of what is called firing that fires, with as many random negatives as positives",
        ),
        described(
            "precision_hard",
            pa.float32(),
            "the same with as many same-token negatives as positives; fuzzing: as many wrongly marked excerpts",
        ),
        described("spearman", pa.float32(), "statistical only: prediction against activation"),
        described("n_examples", pa.int32(), "distinct ones, in whatever number of draws; intruder: distinct intruders"),
        described("n_failed", pa.int32(), "examples without a usable answer, counted in each draw"),
        described("draws", pa.int32(), "times that examples were drawn"),
        described("draw_spread", pa.float32(), "standard deviation of balanced accuracy over draws"),
        described("status", pa.string(), "ok, insufficient (too few examples) or failed (no usable answer)"),
        described("detail", pa.string(), "why not ok"),
    ]
)
SCHEMAS = {
    "interpretations": {INTERPRETATIONS_FILE: INTERPRETATIONS_SCHEMA},
    "interpretation_scores": {SCORES_FILE: SCORES_SCHEMA},
}
"""Asset -> file -> its columns."""


Join = Literal["", "and", "or"]


class Predicate(BaseModel, frozen=True):
    """`first`, or `first` joined with `second`; each is (family name, value number of the corpus).

    Of two joined by "or", the first holds on more of the activation.
    """

    first: tuple[str, int]
    join: Join = ""
    second: tuple[str, int] | None = None
    classes: tuple[str, ...]
    """Class of the token or neighbour that each part names (`token_class`), empty for places and blocks."""
    words: str
    """The predicate as an explanation of at most ten words."""

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """One or two (family, value) pairs."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def rule(self) -> tuple[str, frozenset[tuple[str, int]]]:
        """Equal where two hold on the same tokens, whichever part comes first."""
        return self.join, frozenset(self.parts)

    def holds(self, features_Fn: np.ndarray) -> np.ndarray:
        """bool [n]: where the predicate is true."""
        found = [features_Fn[FAMILIES.index(family)] == value for family, value in self.parts]
        if len(found) == 1:
            return found[0]
        return found[0] & found[1] if self.join == "and" else found[0] | found[1]


class Interpretations(Artifact):
    """The explanations of one experiment."""

    def table(self) -> pa.Table:
        """One row per unit, in their order, see `INTERPRETATIONS_SCHEMA`."""
        return pq.read_table(self.path / INTERPRETATIONS_FILE)

    def rows(self) -> list[dict]:
        """The table as dictionaries."""
        return self.table().to_pylist()

    def labels(self) -> dict[str, int]:
        """Unit -> class, of the units that have one."""
        table = pq.read_table(self.path / INTERPRETATIONS_FILE, columns=["unit", "label"])
        pairs = zip(table["unit"].to_pylist(), table["label"].to_pylist(), strict=True)
        return {unit: label for unit, label in pairs if label is not None}

    def explainer(self) -> str:
        """`statistical`, or `provider/model`."""
        return pq.read_table(self.path / INTERPRETATIONS_FILE, columns=["explainer"])["explainer"][0].as_py()

    def settings(self) -> InterpretationsConfig:
        """The knobs it was made with."""
        return InterpretationsConfig.model_validate_json((self.path / SETTINGS_FILE).read_bytes())


class Scores(Artifact):
    """How well explanations predict their units on held-out rollouts."""

    def table(self) -> pa.Table:
        """One row per unit, explainer and method, see `SCORES_SCHEMA`."""
        return pq.read_table(self.path / SCORES_FILE)

    def of(self, method: str, explainers: Mapping[str, str]) -> dict[str, dict]:
        """Unit -> the score by a method (detection, fuzzing, intruder) of the explanation `explainers` names for it.

        Beside an LLM's words a unit has the score of its predicate, which says nothing of those words.
        """
        rows = (row for row in self.table().to_pylist() if row["method"] == method)
        return {row["unit"]: row for row in rows if row["explainer"] == explainers[row["unit"]]}
