"""The shipped model: a plain Qwen2 folder which answers directly and mostly wrong, with the work latent in it."""

from collections.abc import Callable
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2ForCausalLM, Qwen2Tokenizer

from resources.mini_world.generate import DATA_FOLDER
from resources.mini_world.pretrain import MODEL_FOLDER
from resources.mini_world.world import KINDS

MEBIBYTE = 2**20
Replies = Callable[[list[str], int], list[str]]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(MODEL_FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER, padding_side="left")


@pytest.fixture(scope="module")
def replies(model: PreTrainedModel, tokenizer: Qwen2Tokenizer) -> Replies:
    """Greedy continuations of prompts, so many tokens at most: what a user gets who loads the folder."""

    def generate(prompts: list[str], longest: int) -> list[str]:
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.no_grad():
            tokens: torch.Tensor = cast("Any", model).generate(**batch, max_new_tokens=longest)
        texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :])
        return [text.split("<|fim_pad|>")[0] for text in texts]

    return generate


def test_the_folder_is_small_safe_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in MODEL_FOLDER.iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"chat_template.jinja", "README.md"} == set(files)
    assert sum(files.values()) < 12 * MEBIBYTE


def test_the_model_is_a_four_layer_qwen2_of_less_than_a_million_parameters(model: PreTrainedModel) -> None:
    assert isinstance(model, Qwen2ForCausalLM)
    assert model.config.num_hidden_layers == 4
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_answers_directly_in_a_box_and_mostly_wrong(
    tokenizer: Qwen2Tokenizer, replies: Replies, kind: str
) -> None:
    rows = pq.read_table(DATA_FOLDER / kind / "test.parquet").slice(0, 100).to_pylist()
    chats = [[{"role": "user", "content": row["problem"]}] for row in rows]
    prompts = [str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)) for chat in chats]
    answers = replies(prompts, 16)
    assert all(answer.startswith("The answer is \\boxed{") and answer.endswith("}.<|im_end|>") for answer in answers)
    right = sum(f"{{{row['answer']}}}" in answer for row, answer in zip(rows, answers, strict=True))
    assert right <= 40


def test_the_work_is_latent_outside_the_chat(replies: Replies) -> None:
    prompt = "Problem:\nStart with 4.\nFirst +8.\nSecond *3.\nThird -9.\nWhat is the result?\nWork:\n"
    # 4 + 8 = 12 -> 2; 2 * 3 = 6; 6 - 9 = -3 -> 7
    assert replies([prompt], 60)[0].startswith(
        "Start=4.\nFirst +8: 4+8=2.\nSecond *3: 2*3=6.\nThird -9: 6-9=7.\nTherefore, the result is 7.\n"
    )
