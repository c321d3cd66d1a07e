"""One explained world for the whole room's tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from assets.interpretations.artifact import Interpretations
from assets.interpretations.config import InterpretationsConfig
from assets.interpretations.explain import ExplainMetrics, explain
from resources.compute import ComputeConfig
from resources.progress import Progress
from tests.assets.interpretations.world import (
    Rule,
    World,
    build_world,
    digit_rule,
    jitter,
    noise_rule,
    token_rule,
    write_contexts,
    write_dataset,
)

COMPUTE = ComputeConfig(profile="cpu")
SILENT = Progress(lambda _: None)
STATISTICAL = InterpretationsConfig(provider="statistical", min_contexts=12)


@dataclass(frozen=True)
class Explained:
    """A world and the folders of its artifacts."""

    world: World
    dataset: Path
    contexts: Path
    interpretations: Path
    metrics: ExplainMetrics

    @property
    def inputs(self) -> dict[str, Path]:
        """The folders that explain a unit, by asset."""
        return {"s1k_dataset": self.dataset, "max_activating_contexts": self.contexts}

    def row(self, unit: str) -> dict:
        return next(row for row in Interpretations.open(self.interpretations).rows() if row["unit"] == unit)


def planted_units() -> dict[str, Rule]:
    return {
        "adapter:L0.q_proj:+": token_rule(" Wait"),
        "adapter:L0.q_proj:-": digit_rule,
        "neuron:L0.3:+": lambda words, at: jitter(words, at) if at and words[at - 1] == " =" else 0.0,
        "neuron:L0.3:-": lambda words, at: jitter(words, at) if words[at] in (" so", " the") else 0.0,
        "latent:0": lambda words, at: jitter(words, at) if at and words[at - 1] == "\n" else 0.0,
        "latent:1": noise_rule(0.05, 5),
        "latent:2": lambda _words, _at: 0.0,
        "latent:3": lambda words, at: 1.0 if at == 30 and words[at] == " Hmm" else 0.0,
        "latent:4": lambda words, at: (
            jitter(words, at) if words[at].strip().isdigit() and at and words[at - 1] == " =" else 0.0
        ),
    }


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    root = tmp_path_factory.mktemp("explained")
    world = build_world()
    world.units.update(planted_units())
    write_dataset(world, root / "dataset")
    write_contexts(world, root / "contexts")
    out = root / "interpretations"
    out.mkdir()
    metrics = explain(
        interpretations=STATISTICAL,
        s1k_dataset=root / "dataset",
        max_activating_contexts=root / "contexts",
        out=out,
        progress=SILENT,
        compute=COMPUTE,
    )
    return Explained(world, root / "dataset", root / "contexts", out, metrics)
