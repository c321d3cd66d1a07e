"""The dashboard on disk: a static site, and its list of units as Parquet for notebooks."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from resources.artifact import Artifact
from resources.columns import described

FEATURES = "features.parquet"
PAGE = "index.html"
FEATURES_SCHEMA = pa.schema(
    [
        described("unit", pa.string(), "unit id"),
        described("kind", pa.string(), "adapter, neuron or latent"),
        described("layer", pa.int64(), "-1 for latents"),
        described("projection", pa.string(), "adapted matrix; empty for neurons and latents"),
        described("index", pa.int64(), "neuron or latent number; -1 for adapter directions"),
        described("polarity", pa.int64(), "sign of the activations that count as firing"),
        described("density", pa.float64(), "share of tokens on which it fires"),
        described("max", pa.float64(), "largest activation; 0 when it never fires"),
        described("n_fired", pa.int64(), "tokens on which it fires"),
        described("explanation", pa.string(), "what it fires on, in words"),
        described("explainer", pa.string(), "statistical or provider/model"),
        described("label", pa.int64(), "0 monosemantic, 1 broad but consistent, 2 polysemantic; null without a class"),
        described("status", pa.string(), "of the explanation: ok, insufficient or failed"),
        described("reasoning", pa.string(), "why this class"),
        described("score", pa.float64(), "balanced accuracy of the explanation by detection"),
        described("score_low", pa.float64(), "95 % interval of it, lower end"),
        described("score_high", pa.float64(), "upper end"),
        described(
            "typical",
            pa.float64(),
            "share predicted of the unseen tokens on which it fires, drawn whatever their strength; null with none",
        ),
        described("fuzzing", pa.float64(), "balanced accuracy by fuzzing; null where an LLM was not asked"),
        described("intruder", pa.float64(), "share of intruders found, where guessing gives 1/5; null likewise"),
        described("category", pa.string(), "name of the category, or uncategorized"),
        described("subcategory", pa.string(), "name of the entry of the taxonomy"),
        described("tokens", pa.list_(pa.string()), "tokens that it fires on most, by which the list is searched"),
    ]
)
SCHEMAS = {"feature_dashboard": {FEATURES: FEATURES_SCHEMA}}
"""Asset -> file -> its columns."""


class FeatureDashboard(Artifact):
    """A built site."""

    @property
    def page(self) -> Path:
        """What a browser opens."""
        return self.path / PAGE

    def table(self) -> pa.Table:
        """One row per unit: density, explanation, class, score, category, see `FEATURES_SCHEMA`."""
        return pq.read_table(self.path / FEATURES, schema=FEATURES_SCHEMA)
