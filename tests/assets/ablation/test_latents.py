"""Single latents against a forward pass from which their decoder's contribution is subtracted by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from assets.ablation.artifact import LatentKl
from assets.ablation.config import AblationConfig, LatentAblationConfig
from assets.ablation.latents import LatentMetrics, ablate_latents
from assets.dataset.artifact import S1kDataset
from resources.components import Component
from resources.errors import BadInput
from tests.assets.ablation.world import (
    PROMPT_TOKENS,
    Change,
    World,
    latent_row,
    latent_values,
    pooled,
    progress,
    recaptured,
)

MAX_TOKENS = 20


def run(world: World, folder: Path, config: AblationConfig, latents: int) -> LatentMetrics:
    out, scratch = folder / "out", folder / "scratch"
    for path in (out, scratch):
        path.mkdir(parents=True, exist_ok=True)
    return ablate_latents(
        model=world.model,
        ablation=config,
        latent_ablation=LatentAblationConfig(latents=latents),
        **world.inputs(),
        out=out,
        scratch=scratch,
        progress=progress(),
        compute=world.compute,
    )


def table(folder: Path) -> pa.Table:
    return LatentKl.open(folder / "out").table()


@pytest.fixture(scope="module")
def latents(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    run(world, folder, AblationConfig(max_tokens=MAX_TOKENS), 3)
    return folder


def subtracted(world: World, latent: int, values_of: Callable[[int], np.ndarray]) -> float:
    """Mean KL of a forward pass from which a latent with these values at each token is subtracted."""

    def changes(r: int) -> dict[Component, Change]:
        values_1T1 = torch.from_numpy(values_of(r))[None, :, None].float()
        return {c: lambda s, w=w: s - w * values_1T1 for c, w in latent_row(world, latent).items()}

    return pooled(world, MAX_TOKENS, changes)[0]


def test_a_latent_is_ablated_by_subtracting_what_its_decoder_writes(world: World, latents: Path) -> None:
    rows = table(latents).to_pylist()
    assert len(rows) == 3
    for row in rows:
        latent = int(row["unit"].split(":")[1])

        def values_of(r: int, latent: int = latent) -> np.ndarray:
            return latent_values(world, r, latent, MAX_TOKENS)

        assert row["kl_mean"] == pytest.approx(subtracted(world, latent, values_of), rel=1e-5)
        assert row["kl_mean"] > 0


def test_where_replies_alone_were_captured_a_latent_is_subtracted_from_them_alone(
    replies_only: World, tmp_path: Path
) -> None:
    run(replies_only, tmp_path, AblationConfig(max_tokens=MAX_TOKENS), 1)
    [row] = table(tmp_path).to_pylist()
    latent = int(row["unit"].split(":")[1])

    def values_of(r: int) -> np.ndarray:
        return np.append(np.zeros(PROMPT_TOKENS), latent_values(replies_only, r, latent, MAX_TOKENS - PROMPT_TOKENS))

    assert row["kl_mean"] == pytest.approx(subtracted(replies_only, latent, values_of), rel=1e-5)
    assert row["n_tokens"] == 20 + 17 + 20 + 12


@pytest.mark.parametrize("tokens", [slice(15), slice(PROMPT_TOKENS, 15)])
def test_a_rollout_that_was_captured_in_part_is_told_and_not_ablated_in_part(
    world: World, tmp_path: Path, tokens: slice
) -> None:
    """As where the model's context ends before max_tokens."""
    cut = recaptured(world, tmp_path / "world", tokens)
    with pytest.raises(BadInput, match=r"rollout 0 was captured up to token 15 of the first 20: lower max_tokens"):
        run(cut, tmp_path, AblationConfig(max_tokens=MAX_TOKENS), 1)


def test_the_heaviest_latents_are_chosen_by_activation_mass(world: World, latents: Path) -> None:
    chosen = [row["unit"] for row in table(latents).to_pylist()]
    rollouts = S1kDataset.open(world.folder / "dataset").rollout_ids
    mass = [
        sum(latent_values(world, r, j, MAX_TOKENS).sum() for r in rollouts)
        * np.linalg.norm(list(latent_row(world, j).values()))
        for j in range(20)
    ]
    assert chosen == [f"latent:{j}" for j in np.argsort(mass)[::-1][:3]]


def test_the_metrics_are_the_table_whatever_shares_the_work_is_cut_into(
    world: World, latents: Path, tmp_path: Path
) -> None:
    metrics = run(world, tmp_path, AblationConfig(max_tokens=MAX_TOKENS, slices=2), 3)
    rows = table(latents).to_pylist()
    assert (metrics.n_units, metrics.n_rollouts, metrics.n_tokens) == (3, 4, 20 + 17 + 20 + 12)
    assert [latent["unit"] for latent in metrics.latents] == [row["unit"] for row in rows]
    for shown, row in zip(metrics.latents, rows, strict=True):
        assert shown["kl_mean"] == pytest.approx(row["kl_mean"], rel=1e-5)
