"""Batched decoding against the plain loop: the same tokens, whatever else is in the batch."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

from assets.benchmarks.arms import ablate
from assets.benchmarks.codec import Codec
from assets.benchmarks.decode import RoomyLayer, Row, decode
from assets.benchmarks.engine import Arm, Request
from assets.benchmarks.generate_hf import HfEngine, load_arm
from resources.components import ATTENTION, MLP
from resources.models import ModelConfig

PROMPTS = [
    "Start with 4 .",
    "x",
    "A much longer prompt, with several words in it, to be padded against",
    "Hmm , 7",
    "12345",
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelConfig:
    return ModelConfig(name=str(tiny_model), dtype="float32")


def plain_loop(weights: torch.nn.Module, ids: list[int], num_tokens: int, stop: set[int]) -> list[int]:
    """`generate` at batch 1, as one would write it first."""
    with torch.inference_mode():
        out = weights.generate(  # pyright: ignore[reportCallIssue]
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=num_tokens,
            eos_token_id=sorted(stop),
            pad_token_id=259,
        )
    tokens = out[0, len(ids) :].tolist()
    return tokens[:-1] if tokens[-1] in stop else tokens


def test_greedy_tokens_equal_a_plain_loop_at_batch_1(model: ModelConfig, tiny_model: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    codec = Codec(model)
    free = plain_loop(weights, codec.encode(PROMPTS[0]), 40, {258})
    # A token that the model does write stops it early, so that rows leave the batch at different steps.
    stop = {258, free[5], plain_loop(weights, codec.encode(PROMPTS[2]), 40, {258})[12]}
    expected = [plain_loop(weights, codec.encode(prompt), 40, stop) for prompt in PROMPTS]
    assert len({len(tokens) for tokens in expected}) > 1
    rows = [Row(codec.encode(prompt), 40, frozenset(stop), 0.0, 0) for prompt in PROMPTS]
    decode(weights, rows, codec.pad)
    assert [row.tokens for row in rows] == expected
    assert [row.stopped for row in rows] == [len(tokens) < 40 for tokens in expected]


def test_each_row_has_its_own_token_limit(model: ModelConfig, tiny_model: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    codec = Codec(model)
    rows = [
        Row(codec.encode(prompt), limit, frozenset(), 0.0, 0)
        for prompt, limit in zip(PROMPTS, (1, 2, 7, 30, 5), strict=True)
    ]
    decode(weights, rows, codec.pad)
    assert [len(row.tokens) for row in rows] == [1, 2, 7, 30, 5]
    assert not any(row.stopped for row in rows)


def test_sampled_tokens_do_not_depend_on_the_batch(model: ModelConfig) -> None:
    engine = HfEngine(model, "cpu", batch_size=5)
    arm = Arm("base", model.name, None, "base")
    requests = [Request(prompt, 20, ("<|im_end|>",), 1.0, seed) for seed, prompt in enumerate(PROMPTS)]
    together = dict(engine.complete(arm, requests))
    alone = {index: next(engine.complete(arm, [request]))[1] for index, request in enumerate(requests)}
    assert together == alone
    other = next(engine.complete(arm, [Request(PROMPTS[0], 20, ("<|im_end|>",), 1.0, 99)]))[1]
    assert other.text != alone[0].text


def test_a_stop_at_the_first_token_is_an_empty_answer(model: ModelConfig, tiny_model: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    codec = Codec(model)
    first = plain_loop(weights, codec.encode("x"), 1, set())[0]
    row = Row(codec.encode("x"), 10, frozenset({first}), 0.0, 0)
    decode(weights, [row], codec.pad)
    assert (row.tokens, row.stopped) == ([], True)


def test_the_roomy_cache_holds_what_the_growing_one_holds() -> None:
    torch.manual_seed(0)
    roomy, growing = RoomyLayer(), DynamicLayer()
    for length in (70, 1, 1, 90, 1):
        keys, values = torch.randn(3, 2, length, 4), torch.randn(3, 2, length, 4)
        for mine, theirs in zip(roomy.update(keys, values), growing.update(keys, values), strict=True):
            assert torch.equal(mine, theirs)
    keep = torch.tensor([2, 0])
    roomy.batch_select_indices(keep)
    growing.batch_select_indices(keep)
    torch.testing.assert_close(roomy.keys, growing.keys, rtol=0, atol=0)
    assert roomy.get_seq_length() == growing.get_seq_length() == 163


@pytest.mark.parametrize(("name", "ablated"), [("lora", ()), ("attention_ablated", ATTENTION), ("mlp_ablated", MLP)])
def test_a_merged_arm_computes_what_peft_computes_with_b_zeroed(
    name: str, ablated: tuple[str, ...], model: ModelConfig, tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = ablate(tiny_adapter, tmp_path / name, ablated) if ablated else tiny_adapter
    merged = load_arm(Arm(name, model.name, folder, name), model, "cpu")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    reference = PeftModel.from_pretrained(base, str(tiny_adapter)).eval()
    for key, weight in reference.named_parameters():
        if "lora_B" in key and any(projection in key for projection in ablated):
            weight.data.zero_()
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, reference(ids).logits, atol=2e-4)


def test_special_tokens_survive_decoding(model: ModelConfig) -> None:
    codec = Codec(model)
    text = "<|im_start|>think\nso\n<|im_start|>answer\n7"
    assert codec.decode(codec.encode(text)) == text
