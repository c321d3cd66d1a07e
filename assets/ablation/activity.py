"""What the units' activations are like: means and percentiles of components, and where SAE latents fire.

Shapes: T tokens of a passage, B captured tokens of its rollout, M of them in the passage, C captured columns,
D components, F latents, N firings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assets.ablation.edits import ComponentEdit, Edit
from assets.ablation.passages import Passage
from assets.activations.artifact import ActivationShards
from assets.sae.artifact import Sae
from resources.components import Component, parse_component
from resources.errors import BadInput
from resources.shards import Shards

if TYPE_CHECKING:
    import torch


def column_statistic(shards: Path, statistic: str, components: Sequence[Component]) -> dict[Component, float]:
    """One statistic (`mean`, `abs_p99`, ...) of each component's activation over all captured tokens.

    Raises:
        BadInput: when a component was not captured.
    """
    table = ActivationShards.open(shards).table()
    known = dict(zip(table["column"].to_pylist(), table[statistic].to_pylist(), strict=True))
    missing = [c.id for c in components if c.id not in known]
    if missing:
        raise BadInput(f"{shards} has no statistics of {missing[0]}: capture the activations of this adapter")
    return {c: float(known[c.id]) for c in components}


@dataclass(frozen=True)
class Firings:
    """Latents that fire on one passage, at the tokens of it that were captured."""

    position_N: np.ndarray
    latent_N: np.ndarray
    value_N: np.ndarray


def firings(sae: Sae, shards: Shards, passage: Passage) -> Firings:
    """The SAE's latents on the captured states of a passage.

    Raises:
        BadInput: when its captured tokens are not the dataset's, or are neither all of it nor all of its reply.
    """
    import torch

    state = shards.rollout(passage.rollout_id)
    here_B = state.position_B < len(passage.ids_T)
    position_M = state.position_B[here_B]
    if not np.array_equal(state.token_id_B[here_B], passage.ids_T[position_M]):
        raise BadInput(
            f"the captured tokens of rollout {passage.rollout_id} are not the dataset's: compute activation_shards anew"
        )
    complete = np.arange(len(passage.ids_T)), np.flatnonzero(passage.reply_T)
    if not any(np.array_equal(position_M, positions) for positions in complete):
        raise BadInput(
            f"rollout {passage.rollout_id} was captured up to token {state.position_B[-1] + 1} of the first "
            f"{len(passage.ids_T)}: lower max_tokens to what the model's context holds"
        )
    order = [shards.columns.index(column) for column in sae.columns]
    found = sae.encode(torch.from_numpy(state.state_BC[here_B][:, order]).float())
    return Firings(position_M[found.row_N.numpy()], found.latent_N.numpy(), found.value_N.numpy())


def mass(sae: Sae, found: Sequence[Firings]) -> np.ndarray:
    """Activation mass of every latent: sum over tokens of value x norm of its decoder row, float64 [F]."""
    total_F = np.zeros(sae.d_sae)
    for firing in found:
        np.add.at(total_F, firing.latent_N, firing.value_N.astype(np.float64))
    return total_F * np.linalg.norm(sae.W_dec_FD.numpy().astype(np.float64), axis=1)


def heaviest(sae: Sae, found: Sequence[Firings], count: int) -> list[int]:
    """The latents with the most mass, heaviest first; fewer where fewer fire."""
    mass_F = mass(sae, found)
    order = np.argsort(-mass_F, kind="stable")[:count]
    return [int(latent) for latent in order if mass_F[latent] > 0]


def decoder_row(sae: Sae, latent: int) -> dict[Component, float]:
    """What one unit of a latent adds to each component's activation.

    Raises:
        BadInput: for a latent that the SAE does not have.
    """
    if not 0 <= latent < sae.d_sae:
        raise BadInput(f"there is no latent {latent}: the SAE has {sae.d_sae}")
    row = sae.W_dec_FD[latent].tolist()
    return {parse_component(column): weight for column, weight in zip(sae.columns, row, strict=True) if weight}


def removal_of_latent(
    sae: Sae, latent: int, firing: Firings, live: frozenset[Component], num_tokens: int, device: "torch.device"
) -> Edit | None:
    """Subtract the latent's decoder contribution where it fires; None where that changes nothing.

    The latent's activation is the full run's: it reads all layers at once, so an ablated pass cannot read it again.
    """
    import torch

    mine = firing.latent_N == latent
    row = {c: weight for c, weight in decoder_row(sae, latent).items() if c in live}
    if not mine.any() or not row:
        return None
    value_T1 = torch.zeros(num_tokens, 1, device=device)
    value_T1[firing.position_N[mine], 0] = torch.from_numpy(firing.value_N[mine]).to(device)
    return Edit(f"latent:{latent}", {c: ComponentEdit(shift=-weight * value_T1) for c, weight in row.items()})
