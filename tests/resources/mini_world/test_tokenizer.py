"""The tokenizer: exact both ways, one token for a word or a digit, and Qwen's chat format."""

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen2Tokenizer

from resources.mini_world.documents import MAKERS, SYSTEM_LINES
from resources.mini_world.pretrain import MODEL_FOLDER
from resources.mini_world.tokenizer import SPECIAL_TOKENS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def pieces(tokenizer: Qwen2Tokenizer, text: str) -> list[str]:
    return [str(tokenizer.decode([token])) for token in tokenizer(text)["input_ids"]]


@pytest.mark.parametrize("name", MAKERS)
def test_every_document_is_decoded_exactly(tokenizer: Qwen2Tokenizer, name: str) -> None:
    rng = random.Random(7)
    for _ in range(50):
        text = "".join(segment.text for segment in MAKERS[name](rng))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_text_from_outside_the_world_is_decoded_exactly(tokenizer: Qwen2Tokenizer) -> None:
    text = "You are Qwen, created by Alibaba Cloud.\n\n\tLet $x^2 \\ge 0$ — naïve?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_words_digits_and_line_ends_are_single_tokens(tokenizer: Qwen2Tokenizer) -> None:
    assert pieces(tokenizer, "Third *7: Hmm, 6*7=2.\nTherefore, the result is 2.") == [
        *["Third", " *", "7", ":", " Hmm", ",", " ", "6", "*", "7", "=", "2", ".\n"],
        *["Therefore", ",", " the", " result", " is", " ", "2", "."],
    ]


def test_block_words_are_single_tokens_after_the_turn_token(tokenizer: Qwen2Tokenizer) -> None:
    assert pieces(tokenizer, "<|im_start|>think\n") == ["<|im_start|>", "think", "\n"]
    assert pieces(tokenizer, "<|im_start|>answer\n") == ["<|im_start|>", "answer", "\n"]


def test_special_tokens_are_qwens(tokenizer: Qwen2Tokenizer) -> None:
    assert [pieces(tokenizer, token) for token in SPECIAL_TOKENS] == [[token] for token in SPECIAL_TOKENS]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|fim_pad|>")


def test_the_chat_template_gives_the_pretraining_format(tokenizer: Qwen2Tokenizer) -> None:
    prompt, answer = MAKERS["chat"](random.Random(0))
    system = next(line for line in SYSTEM_LINES if line in prompt.text)
    question = prompt.text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt.text
    messages.append({"role": "assistant", "content": answer.text.removesuffix("<|im_end|>\n")})
    assert tokenizer.apply_chat_template(messages, tokenize=False) == prompt.text + answer.text


def test_the_chat_template_puts_the_default_system_line_first(tokenizer: Qwen2Tokenizer) -> None:
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Start with 4."}], tokenize=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nStart with 4.<|im_end|>\n"
    )


def test_the_shipped_tokenizer_is_made_again_from_the_world(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_text() == (MODEL_FOLDER / "tokenizer.json").read_text()
