"""Small artifacts to the left of the contexts, with many ties, and one call of `collect`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from assets.contexts.artifact import Contexts
from assets.contexts.collect import ContextsMetrics, collect
from assets.contexts.config import ContextsConfig
from assets.sae.artifact import Sae, write_sae
from resources.components import components
from resources.compute import ComputeConfig
from resources.progress import Progress
from tests.shard_builders import build_dataset, build_shards

LENGTHS = {1: 30, 2: 7, 4: 50, 5: 1, 7: 41, 8: 22}
LATENTS = 12


@dataclass(frozen=True)
class World:
    """States by rollout, float16 as stored, and the folders that hold them."""

    folder: Path
    tokens: dict[int, np.ndarray]
    states: dict[int, np.ndarray]
    neurons: dict[int, np.ndarray]
    sae: Sae

    def collect(self, folder: Path, **knobs: object) -> tuple[Contexts, ContextsMetrics | None]:
        """Run the verb on this world, in `folder`."""
        (folder / "out").mkdir(parents=True, exist_ok=True)
        (folder / "scratch").mkdir(exist_ok=True)
        defaults = {"k": 5, "window": 4, "quantile_samples": 3, "silent_samples": 4, "silent_radius": 1}
        metrics = collect(
            contexts=ContextsConfig.model_validate({**defaults, **knobs}),
            s1k_dataset=self.folder / "dataset",
            activation_shards=self.folder / "states",
            neuron_shards=self.folder / "neurons",
            batchtopk_sae=self.folder / "sae",
            out=folder / "out",
            scratch=folder / "scratch",
            progress=Progress(lambda _: None),
            compute=ComputeConfig(profile="cpu"),
        )
        return Contexts(folder / "out"), metrics


def build_sae(folder: Path, columns: tuple[str, ...], latents: int, seed: int = 0) -> Sae:
    """A random SAE whose weights are small integers over 8, so that float32 products are exact and ties common."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(seed)
    sae = Sae(
        path=folder,
        columns=columns,
        k=4,
        threshold=1.0,
        W_enc_DF=torch.randint(-4, 5, (len(columns), latents), generator=draw) / 8,
        b_enc_F=torch.zeros(latents),
        W_dec_FD=torch.zeros(latents, len(columns)),
        b_dec_D=torch.zeros(len(columns)),
        threshold_F=torch.linspace(0.5, 1.5, latents),
    )
    write_sae(folder, sae, {"architecture": "test"})
    return sae


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    columns = tuple(component.id for component in components(1))
    tokens = {r: rng.integers(0, 250, n) for r, n in LENGTHS.items()}
    # Quarters between -3 and 3: ties everywhere, both polarities, exact in float16.
    states = {r: (rng.integers(-12, 13, (n, 7)) / 4).astype(np.float16) for r, n in LENGTHS.items()}
    neurons = {r: (rng.integers(-3, 4, (n, 3)) / 2).astype(np.float16) for r, n in LENGTHS.items()}
    for neuron in neurons.values():
        neuron[:, 2] = 0  # a dead column
    build_dataset(folder / "dataset", tokens)
    build_shards(folder / "states", states, columns, tokens, rollouts_per_shard=2, row_group_rows=16)
    build_shards(folder / "neurons", neurons, None, tokens, rollouts_per_shard=1, row_group_rows=16)
    return World(folder, tokens, states, neurons, build_sae(folder / "sae", columns, LATENTS))


Collect = Callable[..., tuple[Contexts, ContextsMetrics | None]]
