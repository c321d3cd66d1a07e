"""Forward hooks that read scalars off a model's own forward pass, and leave them on its device.

Shapes: T tokens of a packed batch, C columns, I inputs of a matrix.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, cast

from resources.components import Component, components
from resources.errors import BadInput

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

_SHARED_INPUT = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}


@dataclass
class Probe:
    """What to hook, and what the last forward pass said there."""

    columns: tuple[str, ...]
    backbone: "PreTrainedModel"
    """The model without its output head: no logits are computed."""
    attach: "Callable[[list[torch.Tensor]], list[torch.utils.hooks.RemovableHandle]]"
    """Hooks that append one [1, T, columns of this module] tensor each, in column order."""
    _caught: "list[torch.Tensor]" = field(default_factory=list)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The hooks are on the model inside the block, and gone after it."""
        handles = self.attach(self._caught)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self) -> "torch.Tensor":
        """[T, C] of the forward pass just done, in the model's own precision; forgets it."""
        import torch

        scalars_TC = torch.cat(self._caught, dim=-1)[0]
        self._caught.clear()
        return scalars_TC


def adapter_probe(model: "PeftModel") -> Probe:
    """A·x of every component, before scale and B (paper section 3).

    A float32 model carries the adapter in its weights from here on, and A reads each matrix's input: PEFT's own forward
    pass would compute B·A·x in three more passes over every output. In bfloat16 the sum would round the adapter away,
    so there the outputs of PEFT's `lora_A` modules are kept.

    Raises:
        BadInput: when the adapter's rank is not 1, so that a component is no scalar.
    """
    import torch

    base = cast("PreTrainedModel", model.get_base_model())
    modules: dict[str, Any] = dict(base.named_modules())
    name = model.active_adapter
    found = [
        (component, modules[f"{component.module}.lora_A.{name}"])
        for component in components(base.config.num_hidden_layers)
        if f"{component.module}.lora_A.{name}" in modules
    ]
    ranks = {module.weight.shape[0] for _, module in found}
    if ranks != {1}:
        raise BadInput(
            f"activation_shards reads one scalar per component, the adapter has rank {max(ranks)}: train rank 1"
        )
    columns = tuple(component.id for component, _ in found)
    if base.dtype != torch.float32:
        return Probe(columns, _backbone(base), partial(_keep_outputs, [module for _, module in found]))
    model.merge_adapter()
    readers = [
        (modules[members[0][0].module], torch.cat([module.weight for _, module in members]))
        for members in (list(same) for _, same in groupby(found, key=lambda pair: _input(pair[0])))
    ]
    return Probe(columns, _backbone(base), partial(_read_inputs, readers))


def _input(component: Component) -> tuple[int, str]:
    """Components of one layer with the same value read the same input."""
    return component.layer, _SHARED_INPUT.get(component.projection, component.projection)


def _keep_outputs(
    modules: "Sequence[nn.Module]", caught: "list[torch.Tensor]"
) -> "list[torch.utils.hooks.RemovableHandle]":
    def keep(_module: "nn.Module", _inputs: object, output_1T1: "torch.Tensor") -> None:
        caught.append(output_1T1)

    return [module.register_forward_hook(keep) for module in modules]


def _read_inputs(
    readers: "Sequence[tuple[nn.Module, torch.Tensor]]", caught: "list[torch.Tensor]"
) -> "list[torch.utils.hooks.RemovableHandle]":
    """`readers`: a matrix, and the A [columns, I] of all components that read its input."""

    def read(A_CI: "torch.Tensor", _module: "nn.Module", inputs: "tuple[torch.Tensor]") -> None:
        caught.append(inputs[0] @ A_CI.T)

    return [module.register_forward_pre_hook(partial(read, A_CI)) for module, A_CI in readers]


def neuron_probe(model: "PreTrainedModel", per_layer: int, activation: Literal["post", "pre"]) -> Probe:
    """The first neurons of each MLP: what enters `down_proj`, or `up_proj`'s output before the gate.

    Raises:
        BadInput: when an MLP has fewer neurons.
    """
    if per_layer > model.config.intermediate_size:
        raise BadInput(f"neurons.per_layer is {per_layer}, but an MLP has {model.config.intermediate_size}: lower it")
    backbone = _backbone(model)
    layers: list[Any] = list(cast("Any", backbone).layers)

    def attach(caught: "list[torch.Tensor]") -> "list[torch.utils.hooks.RemovableHandle]":
        # Copies: a view would keep every layer's whole MLP activation alive.
        def keep_input(_module: "nn.Module", inputs: "tuple[torch.Tensor]") -> None:
            caught.append(inputs[0][..., :per_layer].clone())

        def keep_output(_module: "nn.Module", _inputs: object, output_1TI: "torch.Tensor") -> None:
            caught.append(output_1TI[..., :per_layer].clone())

        if activation == "post":
            return [layer.mlp.down_proj.register_forward_pre_hook(keep_input) for layer in layers]
        return [layer.mlp.up_proj.register_forward_hook(keep_output) for layer in layers]

    columns = tuple(f"L{layer}.{neuron}" for layer in range(len(layers)) for neuron in range(per_layer))
    return Probe(columns, backbone, attach)


def _backbone(model: "PreTrainedModel") -> "PreTrainedModel":
    return getattr(model, model.base_model_prefix)
