"""Rendered text, ids, spans, roles and loss against the chat template, the tokenizer and the bytes themselves."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from resources.chat import Renderer, Role, Rollout, assistant, clean, partition, tokenise
from resources.errors import BadInput
from tests.builders import TEMPLATE

ROLLOUT = Rollout("How much is é + 数?", "I think… 数学 🤔\n\nWait", "Answer: 4")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_model)


def messages(rollout: Rollout) -> list[dict[str, str]]:
    return [{"role": "user", "content": rollout.question}, {"role": "assistant", "content": assistant(rollout)}]


def test_the_training_text_is_the_papers(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "".join(piece.text for piece in Renderer(tokenizer, "training").pieces(Rollout("Q", "T", "Answer: 4")))
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n<|im_start|>think\nT\n<|im_start|>answer\nAnswer: 4<|im_end|>\n"
    )


def test_the_authors_capture_text_has_their_system_line_and_no_early_turn_ends(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "".join(piece.text for piece in Renderer(tokenizer, "authors_capture").pieces(Rollout("Q", "T", "A")))
    assert text == (
        "<|im_start|>system\nYou are a helpful mathematics assistant.\n<|im_start|>user\nQ\n"
        "<|im_start|>assistant\n<|im_start|>think\nT\n<|im_start|>answer\nA<|im_end|>"
    )


@settings(max_examples=60, deadline=None)
@given(*(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30) for _ in range(3)))
def test_ids_are_those_of_the_chat_template_and_spans_join_to_the_text(
    tokenizer: PreTrainedTokenizerFast, question: str, thinking: str, attempt: str
) -> None:
    rollout = clean(question, thinking, attempt)
    pieces = Renderer(tokenizer, "training").pieces(rollout)
    (found,) = tokenise(tokenizer, [pieces])
    text = "".join(piece.text for piece in pieces)
    assert text == tokenizer.apply_chat_template(messages(rollout), tokenize=False)
    assert found.ids_T.tolist() == tokenizer.apply_chat_template(messages(rollout), return_dict=False)
    assert "".join(text[start:end] for start, end in found.span_T2.tolist()) == text
    assert (found.span_T2[1:, 0] == found.span_T2[:-1, 1]).all()


def test_a_character_split_over_tokens_belongs_to_the_one_with_its_last_byte(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The tokenizer's tokens are bytes: a character of n bytes is n - 1 empty spans, then itself."""
    pieces = Renderer(tokenizer, "training").pieces(ROLLOUT)
    (found,) = tokenise(tokenizer, [pieces])
    text = "".join(piece.text for piece in pieces)
    tokens = [text[start:end] for start, end in found.span_T2.tolist()]
    think = [token for token, role in zip(tokens, found.role_T, strict=True) if role == Role.THINK]
    expected = [part for char in ROLLOUT.thinking for part in [""] * (len(char.encode()) - 1) + [char]]
    assert think == expected
    assert expected.count("") == 2 + 2 + 2 + 3


def test_loss_is_on_the_assistants_tokens_from_its_first_to_its_turn_end(tokenizer: PreTrainedTokenizerFast) -> None:
    (found,) = tokenise(tokenizer, [Renderer(tokenizer, "training").pieces(ROLLOUT)])
    trained = tokenizer.decode(found.ids_T[found.loss_T])
    assert trained == assistant(ROLLOUT) + "<|im_end|>"
    first = int(np.argmax(found.loss_T))
    assert str(tokenizer.decode(found.ids_T[:first])).endswith("<|im_start|>assistant\n")


def test_roles_mark_each_part_of_the_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    (found,) = tokenise(tokenizer, [Renderer(tokenizer, "training").pieces(ROLLOUT)])
    parts = {role: str(tokenizer.decode(found.ids_T[found.role_T == role])) for role in Role}
    assert parts[Role.SYSTEM] == "You are a helpful assistant."
    assert parts[Role.USER] == ROLLOUT.question
    assert parts[Role.THINK] == ROLLOUT.thinking
    assert parts[Role.ANSWER] == ROLLOUT.attempt
    assert parts[Role.CONTROL].startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [(" 4 \n", "Answer:  4"), ("So Answer: 4 ", "So Answer: 4"), ("answer: 4", "Answer: answer: 4")],
)
def test_answer_is_put_before_an_attempt_without_it_as_s1_does(attempt: str, expected: str) -> None:
    """s1 puts the prefix before it strips, so inner blanks stay: the published tokenised text has them."""
    assert clean("q", " t \n", attempt) == Rollout("q", "t", expected)


def test_offsets_with_gaps_and_shared_characters_become_a_partition() -> None:
    offsets = np.array([(1, 3), (3, 4), (3, 4), (6, 7)], np.int32)
    assert partition(offsets, 9).tolist() == [[0, 3], [3, 3], [3, 4], [4, 9]]


def test_a_chat_template_of_another_family_is_refused(tokenizer: PreTrainedTokenizerFast, tiny_model: Path) -> None:
    other = AutoTokenizer.from_pretrained(tiny_model)
    other.chat_template = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}{% endfor %}"
    with pytest.raises(BadInput, match="chat template"):
        Renderer(other, "training")


@pytest.mark.parametrize(
    "content",
    ["message['content']|trim", "message['content'].split('</think>')[-1]"],
    ids=["trims", "drops the thinking"],
)
def test_a_chat_template_that_changes_the_texts_is_refused(tiny_model: Path, content: str) -> None:
    other = AutoTokenizer.from_pretrained(tiny_model)
    other.chat_template = TEMPLATE.replace("message['content']", content)
    with pytest.raises(BadInput, match=r"does not write turns as Qwen2\.5's does"):
        Renderer(other, "training")
