"""The loss of one forward pass as a module, so that a sharded model gathers its weights around all of it.

Shapes: T tokens of the pass, P predicted tokens, D hidden size.
"""

from typing import TYPE_CHECKING, Any

import torch

from assets.adapter.examples import Pass
from assets.adapter.loss import summed_cross_entropy
from resources.attention import use_varlen_attention
from resources.errors import BadInput
from resources.packing import forward_kwargs

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class RolloutLoss(torch.nn.Module):
    """Sum of the cross-entropy over a pass's predicted tokens; logits exist for those alone."""

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        device: torch.device,
        recomputed_layers: int | None,
        autocast: torch.dtype | None,
    ) -> None:
        """`autocast`: compute precision where the weights are kept in a higher one."""
        super().__init__()
        use_varlen_attention(model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
        self.base: PreTrainedModel = base  # pyright: ignore[reportAttributeAccessIssue]
        self._device = device
        self._autocast = autocast
        _recompute(self.base, recomputed_layers)
        self.train()

    def forward(self, one: Pass) -> torch.Tensor:
        """A float32 scalar."""
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            hidden_TD = self.base.model(**forward_kwargs(one.packed, self._device)).last_hidden_state[0]
            row_P = torch.from_numpy(one.row_P).to(self._device)
            target_P = torch.from_numpy(one.target_P).to(self._device)
            return summed_cross_entropy(hidden_TD.index_select(0, row_P), self.base.lm_head.weight, target_P)


def _recompute(base: "PreTrainedModel", num_layers: int | None) -> None:
    """Let the first `num_layers` layers (None: all) recompute their activations in the backward pass."""
    layers: list[Any] = list(base.model.layers)
    if num_layers is not None and num_layers > len(layers):
        raise BadInput(f"compute.recomputed_layers is {num_layers}, but the model has {len(layers)} layers")
    if num_layers == 0:
        return
    base.activation_checkpointing_enable({"use_reentrant": False})
    for layer in layers[num_layers:] if num_layers is not None else ():
        layer.gradient_checkpointing = False
