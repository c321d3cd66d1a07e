"""The room's inputs on disk, made from the tiny model, and the naive definition to compare with.

The naive pass is PEFT's own forward with hooks between lora_A and lora_B: a fresh full forward per unit and rollout,
and a float64 softmax over whole logits.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from assets.dataset.artifact import ROLLOUT_SCHEMA, ROLLOUTS, TOKEN_SCHEMA, TOKENS, S1kDataset
from assets.sae.artifact import Sae, write_sae
from resources.components import Component, parse_component
from resources.compute import ComputeConfig
from resources.models import ModelConfig, load_adapted
from resources.progress import Progress
from resources.shards import SHARD, Shards, StateBatch, write_shard
from tests.shard_builders import write_statistics

LENGTHS = {0: 24, 1: 17, 4: 30, 7: 12}
PROMPT_TOKENS = 6
LATENTS = 20
Change = Callable[[torch.Tensor], torch.Tensor]
"""From a component's activations [1, T, 1] to what lora_B reads instead."""


def progress() -> Progress:
    return Progress(lambda _: None)


@dataclass(frozen=True)
class World:
    """Folders of a model, an adapter and everything computed from them."""

    folder: Path
    model_folder: Path
    adapter: Path
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The fixtures are float32: what the naive definition is exact for."""
    _full: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict, compare=False)

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(name=str(self.model_folder), dtype=self.dtype)

    @property
    def compute(self) -> ComputeConfig:
        return ComputeConfig(profile="cpu", tokens_per_batch=128)

    def inputs(self) -> dict[str, Path]:
        """What a stage on the dictionary reads; `adapter_inputs`: a stage on the adapter alone."""
        return {**self.adapter_inputs(), "batchtopk_sae": self.folder / "sae"}

    def adapter_inputs(self) -> dict[str, Path]:
        return {
            "s1k_dataset": self.folder / "dataset",
            "lora_checkpoint": self.adapter,
            "activation_shards": self.folder / "shards",
        }

    @cached_property
    def peft(self):  # noqa: ANN201
        return load_adapted(self.model, self.adapter, "cpu")

    @cached_property
    def shards(self) -> Shards:
        return Shards.open(self.folder / "shards")

    @contextmanager
    def changed(self, changes: dict[Component, Change]) -> Iterator[None]:
        modules = dict(self.peft.named_modules())
        handles = [
            modules[f"base_model.model.{c.module}"]
            .lora_A["default"]
            .register_forward_hook(lambda _m, _a, out, change=change: change(out))
            for c, change in changes.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def logits(self, ids: Sequence[int], changes: dict[Component, Change]) -> torch.Tensor:
        """Float64 logits [T, V] of a fresh full forward."""
        with self.changed(changes):
            return self.peft(torch.tensor([list(ids)])).logits[0].double()

    def naive(self, ids: Sequence[int], changes: dict[Component, Change]) -> tuple[torch.Tensor, torch.Tensor]:
        """KL(full || changed) at every position, and the rise of the next token's cross-entropy at all but the last."""
        full, edited = self.full(tuple(ids)), self.logits(ids, changes).log_softmax(-1)
        rise = (full - edited)[:-1].gather(1, torch.tensor(list(ids)[1:])[:, None])[:, 0]
        return (full.exp() * (full - edited)).sum(-1), rise

    def full(self, ids: tuple[int, ...]) -> torch.Tensor:
        """Log-probabilities of the unchanged model, run once per text."""
        if ids not in self._full:
            self._full[ids] = self.logits(ids, {}).log_softmax(-1)
        return self._full[ids]


def build_world(folder: Path, model_folder: Path, adapter: Path) -> World:
    """Write a dataset of random bytes, the adapter's states on it, and a random SAE that fires now and then."""
    world = World(folder, model_folder, adapter)
    rng = np.random.default_rng(0)
    tokens = {r: rng.integers(32, 127, n).astype(np.int32) for r, n in LENGTHS.items()}
    _write_dataset(folder / "dataset", tokens)
    _write_shards(world, tokens)
    _write_sae(world)
    return world


def copied(world: World, folder: Path, adapter: Path | None = None) -> World:
    """The same inputs in a folder of their own, to be changed."""
    shutil.copytree(world.folder, folder)
    return World(folder, world.model_folder, adapter or world.adapter, world.dtype)


def recaptured(world: World, folder: Path, tokens: slice) -> World:
    """The same inputs in a folder of their own, where only these tokens of each rollout were captured."""
    other = copied(world, folder)
    parts = [world.shards.rollout(r).rows(tokens) for r in LENGTHS]
    _write_states(other.folder / "shards", parts, world.shards.columns)
    return other


def _write_dataset(folder: Path, tokens: dict[int, np.ndarray]) -> None:
    folder.mkdir()
    rollouts = [
        {
            "rollout_id": r,
            "question": "?",
            "solution": "\\boxed{7}",
            "text": bytes(ids.tolist()).decode(),
            "n_tokens": len(ids),
            "n_cut": 0,
        }
        for r, ids in tokens.items()
    ]
    rows = [
        {
            "rollout_id": r,
            "position": t,
            "token_id": int(token),
            "start": t,
            "end": t + 1,
            "role": 2 if t >= PROMPT_TOKENS else 1,
            "loss": t >= PROMPT_TOKENS,
        }
        for r, ids in tokens.items()
        for t, token in enumerate(ids)
    ]
    pq.write_table(pa.Table.from_pylist(rollouts, schema=ROLLOUT_SCHEMA), folder / ROLLOUTS)
    pq.write_table(pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA), folder / TOKENS)


def _write_shards(world: World, tokens: dict[int, np.ndarray]) -> None:
    from resources.components import components

    columns = components(world.peft.config.num_hidden_layers)
    parts = []
    for r, ids in tokens.items():
        seen: dict[Component, torch.Tensor] = {}

        def keep(component: Component, seen: dict[Component, torch.Tensor] = seen) -> Change:
            def change(out: torch.Tensor) -> torch.Tensor:
                seen[component] = out[0, :, 0]
                return out

            return change

        world.logits(ids.tolist(), {c: keep(c) for c in columns})
        state = torch.stack([seen[c] for c in columns], dim=1).numpy().astype(np.float16)
        parts.append(StateBatch(np.full(len(ids), r, np.int32), np.arange(len(ids), dtype=np.int32), ids, state))
    folder = world.folder / "shards"
    folder.mkdir()
    _write_states(folder, parts, tuple(c.id for c in columns))


def _write_states(folder: Path, parts: Sequence[StateBatch], columns: tuple[str, ...]) -> None:
    joined = StateBatch(*(np.concatenate([getattr(p, f) for p in parts]) for f in StateBatch.__dataclass_fields__))
    write_shard(folder / SHARD.format(0), joined, columns, "tiny", 64)
    write_statistics(folder)


def _write_sae(world: World) -> None:
    generator = torch.Generator().manual_seed(5)
    columns = world.shards.columns[::-1]
    width = len(columns)
    encoder = torch.randn(width, LATENTS, generator=generator) / width**0.5
    sae = Sae(
        path=world.folder / "sae",
        columns=columns,
        k=3,
        threshold=1.0,
        W_enc_DF=encoder,
        b_enc_F=torch.zeros(LATENTS),
        W_dec_FD=torch.randn(LATENTS, width, generator=generator) / width**0.5,
        b_dec_D=torch.zeros(width),
        threshold_F=torch.full((LATENTS,), 1.0),
    )
    sae.path.mkdir()
    write_sae(sae.path, sae, {})


def latent_values(world: World, r: int, latent: int, max_tokens: int) -> np.ndarray:
    """The latent's activation at each of a rollout's first tokens, by the dense definition."""
    sae = Sae.open(world.folder / "sae")
    state = world.shards.rollout(r).state_BC[:max_tokens].astype(np.float32)
    order = [world.shards.columns.index(c) for c in sae.columns]
    dense = state[:, order] @ sae.W_enc_DF.numpy()[:, latent] + float(sae.b_enc_F[latent])
    return np.where(dense > float(sae.threshold_F[latent]), dense, 0.0)


def latent_row(world: World, latent: int) -> dict[Component, float]:
    sae = Sae.open(world.folder / "sae")
    return {parse_component(c): float(w) for c, w in zip(sae.columns, sae.W_dec_FD[latent], strict=True)}


def pooled(
    world: World, max_tokens: int, changes_of: Callable[[int], dict[Component, Change]]
) -> tuple[float, float, list[float]]:
    """Mean KL, mean rise of CE, and mean KL of each rollout, over all rollouts' first tokens."""
    dataset = S1kDataset.open(world.folder / "dataset")
    kls, rises = [], []
    for r in dataset.rollout_ids:
        ids = dataset.token_ids(r)[:max_tokens].tolist()
        changes = changes_of(r)
        kl, rise = world.naive(ids, changes)
        kls.append(kl)
        rises.append(rise)
    return float(torch.cat(kls).mean()), float(torch.cat(rises).mean()), [float(kl.mean()) for kl in kls]
