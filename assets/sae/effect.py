"""What the SAE's errors do to the model: the adapter state is replaced by its reconstruction, and the output compared.

The state of all components at a token is taken from the shards (the full adapter's pass), encoded, decoded, and put in
the place of every lora_A's output, so that B writes the reconstruction. Zeroing the state instead gives the model
without the adapter's components: the yardstick.
Shapes: T tokens of one rollout, D components, E components that entered training, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict

from resources.components import parse_component
from resources.errors import BadInput
from resources.progress import Progress

if TYPE_CHECKING:
    from peft import PeftModel

LOGITS_AT_ONCE = 256
"""Tokens whose float32 logits are compared at once: 156 MB for a vocabulary of 152,064."""


class Effect(BaseModel):
    """Means over tokens. KL over all tokens, cross-entropy over those that training counted (nats per token)."""

    model_config = ConfigDict(frozen=True)

    kl_reconstructed: float
    """KL(full adapter || reconstructed state)."""
    kl_zeroed: float
    """KL(full adapter || state set to zero)."""
    kl_recovered: float
    """1 - kl_reconstructed / kl_zeroed."""
    cross_entropy_full: float
    cross_entropy_reconstructed: float
    cross_entropy_zeroed: float
    cross_entropy_recovered: float
    """(zeroed - reconstructed) / (zeroed - full); may exceed 1, and means little where zeroing does no harm."""
    tokens: int
    rollouts: int


@dataclass(frozen=True)
class Replayed:
    """One rollout with the state that the full adapter had on it."""

    token_ids_T: torch.Tensor
    """int64."""
    counted_T: torch.Tensor
    """bool: the token's prediction counts in the cross-entropy."""
    rebuilt_TE: torch.Tensor
    """float32: the reconstructed state of the components that entered."""


@contextmanager
def state_put_back(model: "PeftModel", columns: tuple[str, ...], state_TE: torch.Tensor) -> Iterator[None]:
    """While open, lora_A of the component `columns[e]` gives `state_TE[:, e]` whatever it reads (rank 1, one rollout).

    Raises:
        BadInput: when the adapter has no such component, or its rank is not 1.
    """
    handles = []
    try:
        for e, column in enumerate(columns):
            lora_A = _lora_a(model, column)
            handles.append(lora_A.register_forward_hook(_giving(state_TE[:, e])))
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


def _giving(state_T: torch.Tensor):  # noqa: ANN202  a hook, as torch types them
    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return state_T.to(output.dtype).view_as(output)

    return hook


def measure_effect(
    model: "PeftModel", columns: tuple[str, ...], rollouts: list[Replayed], progress: Progress
) -> Effect:
    """Three passes per rollout: full adapter, reconstructed state, zeroed state."""
    sums = torch.zeros(5, dtype=torch.float64)
    tokens = counted = 0
    for done, rollout in enumerate(rollouts, start=1):
        full_TV = _logits(model, rollout.token_ids_T)
        with state_put_back(model, columns, rollout.rebuilt_TE):
            rebuilt_TV = _logits(model, rollout.token_ids_T)
        with state_put_back(model, columns, torch.zeros_like(rollout.rebuilt_TE)):
            zeroed_TV = _logits(model, rollout.token_ids_T)
        sums[0] += _kl_sum(full_TV, rebuilt_TV)
        sums[1] += _kl_sum(full_TV, zeroed_TV)
        for i, logits_TV in enumerate((full_TV, rebuilt_TV, zeroed_TV), start=2):
            sums[i] += _cross_entropy_sum(logits_TV, rollout)
        tokens += len(rollout.token_ids_T)
        counted += int(rollout.counted_T[1:].sum())
        progress.step("effect on the model", done, len(rollouts))
    kl_rebuilt, kl_zeroed = (sums[:2] / tokens).tolist()
    full, rebuilt, zeroed = (sums[2:] / max(counted, 1)).tolist()
    return Effect(
        kl_reconstructed=kl_rebuilt,
        kl_zeroed=kl_zeroed,
        kl_recovered=_share(kl_zeroed - kl_rebuilt, kl_zeroed),
        cross_entropy_full=full,
        cross_entropy_reconstructed=rebuilt,
        cross_entropy_zeroed=zeroed,
        cross_entropy_recovered=_share(zeroed - rebuilt, zeroed - full),
        tokens=tokens,
        rollouts=len(rollouts),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _logits(model: "PeftModel", token_ids_T: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=token_ids_T[None], use_cache=False).logits[0]


def _kl_sum(full_TV: torch.Tensor, other_TV: torch.Tensor) -> float:
    total = 0.0
    for full, other in zip(full_TV.split(LOGITS_AT_ONCE), other_TV.split(LOGITS_AT_ONCE), strict=True):
        total += float(
            F.kl_div(other.float().log_softmax(-1), full.float().log_softmax(-1), reduction="sum", log_target=True)
        )
    return total


def _cross_entropy_sum(logits_TV: torch.Tensor, rollout: Replayed) -> float:
    targets_T = torch.where(rollout.counted_T, rollout.token_ids_T, -100)[1:]
    total = 0.0
    for logits, targets in zip(logits_TV[:-1].split(LOGITS_AT_ONCE), targets_T.split(LOGITS_AT_ONCE), strict=True):
        total += float(F.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100))
    return total
