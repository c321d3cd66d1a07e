"""The GPU benches' names for what torch 2.11 and transformers 5.17 call otherwise (bench/gpu_versions.py)."""

import pytest
import torch
from torch.nn.attention import varlen
from transformers import PreTrainedModel

from bench.gpu_versions import accept_older


def test_older_attention_is_called_as_newer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend_2_11(query: torch.Tensor, longest: int, *, scale: float, window_size: tuple[int, int]) -> object:
        return query, longest, scale, window_size

    monkeypatch.setattr(varlen, "varlen_attn", attend_2_11)
    accept_older()
    query = torch.ones(1)
    found = varlen.varlen_attn(query, 3, scale=0.5, window_size=(-1, 0), enable_gqa=True)  # pyright: ignore[reportCallIssue]
    assert found == (query, 3, 0.5, (-1, 0))


def test_older_models_recompute_by_the_newer_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(PreTrainedModel, "activation_checkpointing_enable")
    accept_older()
    assert PreTrainedModel.activation_checkpointing_enable is PreTrainedModel.gradient_checkpointing_enable
    del PreTrainedModel.activation_checkpointing_enable


def test_newer_versions_stay_as_they_are() -> None:
    before = varlen.varlen_attn, PreTrainedModel.activation_checkpointing_enable
    accept_older()
    assert (varlen.varlen_attn, PreTrainedModel.activation_checkpointing_enable) == before
