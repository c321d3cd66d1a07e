"""What the SAE's errors do to the model: the adapter state is replaced by its reconstruction, and the output compared.

The state of all components at a token is taken from the shards (the full adapter's pass), encoded, decoded, and put in
the place of every lora_A's output, so that B writes the reconstruction. Zeroing the state instead gives the model
without the adapter's components: the yardstick. Tokens that were not captured keep the state that they have, in both.
Shapes: T tokens of one rollout, N of them captured, P at once, D components, E components that entered training, V
vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel

from assets.sae.artifact import Sae
from resources.components import parse_component
from resources.errors import BadInput
from resources.progress import Progress
from resources.shards import StateBatch

if TYPE_CHECKING:
    from peft import PeftModel

    from assets.dataset.artifact import S1kDataset

LOGITS_AT_ONCE = 256
"""Tokens whose float32 logits are compared at once: 156 MB for a vocabulary of 152,064."""


class Effect(BaseModel, frozen=True):
    """Means over what captured tokens predict, nats per token: KL at all of them, cross-entropy where the next token
    counted in training."""

    kl_reconstructed: float
    """KL(full adapter || reconstructed state)."""
    kl_zeroed: float
    """KL(full adapter || state set to zero)."""
    kl_recovered: float | None
    """1 - kl_reconstructed / kl_zeroed; None where zeroing changes nothing."""
    cross_entropy_full: float | None
    """None, as all of cross-entropy, where no next token counted: `sae.effect_tokens` ends within the prompts."""
    cross_entropy_reconstructed: float | None
    cross_entropy_zeroed: float | None
    cross_entropy_recovered: float | None
    """(zeroed - reconstructed) / (zeroed - full); may exceed 1, and means little where zeroing does no harm."""
    tokens: int
    """Captured ones, those of the KL."""
    rollouts: int


@dataclass(frozen=True)
class Replayed:
    """One rollout up to its last captured token, with what the SAE makes of the state that the full adapter had."""

    token_ids_T: torch.Tensor
    """int64."""
    counted_T: torch.Tensor
    """bool: the token's prediction counts in the cross-entropy."""
    position_N: torch.Tensor
    """int64, ascending: the captured tokens."""
    rebuilt_NE: torch.Tensor
    """float32: their reconstructed state, of the components that entered."""

    @property
    def predicting_N(self) -> torch.Tensor:
        """Captured tokens whose next token counts."""
        inside_N = self.position_N[self.position_N + 1 < len(self.token_ids_T)]
        return inside_N[self.counted_T[inside_N + 1]]


def replay(sae: Sae, entering: np.ndarray, captured: StateBatch, dataset: "S1kDataset", device: str) -> Replayed:
    """The rollout of some captured tokens, at least one."""
    rollout, tokens = int(captured.rollout_id_B[0]), int(captured.position_B[-1]) + 1
    state_ND = torch.from_numpy(captured.state_BC.astype(np.float32)).to(device)
    return Replayed(
        token_ids_T=torch.from_numpy(dataset.token_ids(rollout)[:tokens].astype(np.int64)).to(device),
        counted_T=torch.from_numpy(dataset.loss_mask(rollout)[:tokens].copy()).to(device),
        position_N=torch.from_numpy(captured.position_B.astype(np.int64)).to(device),
        rebuilt_NE=sae.decode(sae.encode(state_ND), len(state_ND))[:, entering],
    )


@contextmanager
def state_put_back(
    model: "PeftModel", columns: tuple[str, ...], position_N: torch.Tensor, state_NE: torch.Tensor
) -> Iterator[None]:
    """While open, lora_A of `columns[e]` gives `state_NE[:, e]` at these tokens of one rollout, whatever it reads.

    Raises:
        BadInput: when the adapter has no such component, or its rank is not 1.
    """
    handles = []
    try:
        for e, column in enumerate(columns):
            lora_A = _lora_a(model, column)
            handles.append(lora_A.register_forward_hook(_giving(position_N, state_NE[:, e])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _lora_a(model: "PeftModel", column: str) -> torch.nn.Module:
    try:
        adapted = model.get_base_model().get_submodule(parse_component(column).module)
        lora_A = adapted.get_submodule("lora_A.default")
    except AttributeError as error:
        raise BadInput(f"the adapter has no component {column}, which the activation shards have") from error
    rank = lora_A.get_parameter("weight").shape[0]
    if rank != 1:
        raise BadInput(f"the adapter has rank {rank}: a state of one scalar per component needs rank 1")
    return lora_A


def _giving(
    position_N: torch.Tensor, state_N: torch.Tensor
) -> Callable[[torch.nn.Module, object, torch.Tensor], torch.Tensor]:
    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        given = output.clone()
        given[0, position_N, 0] = state_N.to(output.dtype)
        return given

    return hook


def measure_effect(
    model: "PeftModel", columns: tuple[str, ...], rollouts: list[Replayed], progress: Progress
) -> Effect:
    """Three passes per rollout: full adapter, reconstructed state, zeroed state."""
    sums = torch.zeros(5, dtype=torch.float64)
    tokens = counted = 0
    for done, rollout in enumerate(rollouts, start=1):
        full_TV = _logits(model, rollout.token_ids_T)
        position_N, rebuilt_NE = rollout.position_N, rollout.rebuilt_NE
        with state_put_back(model, columns, position_N, rebuilt_NE):
            rebuilt_TV = _logits(model, rollout.token_ids_T)
        with state_put_back(model, columns, position_N, torch.zeros_like(rebuilt_NE)):
            zeroed_TV = _logits(model, rollout.token_ids_T)
        sums[0] += _kl_sum(full_TV, rebuilt_TV, position_N)
        sums[1] += _kl_sum(full_TV, zeroed_TV, position_N)
        for i, logits_TV in enumerate((full_TV, rebuilt_TV, zeroed_TV), start=2):
            sums[i] += _cross_entropy_sum(logits_TV, rollout)
        tokens += len(position_N)
        counted += len(rollout.predicting_N)
        progress.step("effect on the model", done, len(rollouts))
    kl_rebuilt, kl_zeroed = (sums[:2] / tokens).tolist()
    full, rebuilt, zeroed = (sums[2:] / max(counted, 1)).tolist()
    recovered = _share(zeroed - rebuilt, zeroed - full)
    if not counted:
        full = rebuilt = zeroed = None
    return Effect(
        kl_reconstructed=kl_rebuilt,
        kl_zeroed=kl_zeroed,
        kl_recovered=_share(kl_zeroed - kl_rebuilt, kl_zeroed),
        cross_entropy_full=full,
        cross_entropy_reconstructed=rebuilt,
        cross_entropy_zeroed=zeroed,
        cross_entropy_recovered=recovered,
        tokens=tokens,
        rollouts=len(rollouts),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _logits(model: "PeftModel", token_ids_T: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=token_ids_T[None], use_cache=False).logits[0]


def _kl_sum(full_TV: torch.Tensor, other_TV: torch.Tensor, position_N: torch.Tensor) -> float:
    total = 0.0
    for position_P in position_N.split(LOGITS_AT_ONCE):
        full_PV, other_PV = (logits_TV[position_P].float().log_softmax(-1) for logits_TV in (full_TV, other_TV))
        total += float(F.kl_div(other_PV, full_PV, reduction="sum", log_target=True))
    return total


def _cross_entropy_sum(logits_TV: torch.Tensor, rollout: Replayed) -> float:
    total = 0.0
    for position_P in rollout.predicting_N.split(LOGITS_AT_ONCE):
        targets_P = rollout.token_ids_T[position_P + 1]
        total += float(F.cross_entropy(logits_TV[position_P].float(), targets_P, reduction="sum"))
    return total
