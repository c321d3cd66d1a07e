"""Lets the GPU benches run on what a GPU machine's image brings: torch from 2.11 and transformers from 5.17 on.

The project itself pins newer ones (pyproject.toml); nothing in it knows of this file. Beside both the benches need
peft, accelerate, pyarrow and pydantic; the training uses liger-kernel where it is, as the extra `gpu` brings it. What a
machine without a network lacks is brought, built for its Python:

    pip install --target .brought --only-binary=:all: --platform manylinux_2_17_x86_64 --python-version 3.12 pydantic
    pip install --target .brought --no-deps liger-kernel
    PYTHONPATH=.brought python3 -m bench.gpu_training --shape 7b
"""

import inspect
from typing import Any

from torch.nn.attention import varlen
from transformers import PreTrainedModel


def accept_older() -> None:
    """Give older versions the two names that newer ones have for what both do."""
    if not hasattr(PreTrainedModel, "activation_checkpointing_enable"):
        older: Any = PreTrainedModel.gradient_checkpointing_enable
        PreTrainedModel.activation_checkpointing_enable = older
    attend = varlen.varlen_attn
    if "enable_gqa" in inspect.signature(attend).parameters:
        return

    def attend_with_fewer_key_heads(*states: Any, enable_gqa: bool, scale: float, window_size: tuple[int, int]) -> Any:
        del enable_gqa  # torch 2.11 takes fewer key heads without being told so
        return attend(*states, scale=scale, window_size=window_size)

    varlen.varlen_attn = attend_with_fewer_key_heads
