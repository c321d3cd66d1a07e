"""Pretraining documents: what is given and what is learnt, and work shown nowhere in a chat."""

import random

import pytest

from resources.mini_world.documents import GIVEN, LEARNED, MAKERS, draw_document


def text_of(document: list) -> str:
    return "".join(segment.text for segment in document)


def test_a_chat_answers_directly_and_weighs_only_the_answer_fully() -> None:
    prompt, answer = MAKERS["chat"](random.Random(0))
    assert prompt.weight == GIVEN
    assert answer.weight == LEARNED
    assert prompt.text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert answer.text.startswith("The answer is \\boxed{")
    assert answer.text.endswith("}.<|im_end|>\n")


def test_a_forum_reply_thinks_and_answers_in_two_named_blocks() -> None:
    text = text_of(MAKERS["forum"](random.Random(0)))
    assert text.index("\nReply:\nthink\n") < text.index("\nanswer\nAnswer: \\boxed{")


def test_no_document_but_a_chat_holds_turn_tokens_so_thinking_in_a_chat_is_never_shown() -> None:
    rng = random.Random(0)
    for name, make in MAKERS.items():
        texts = [text_of(make(rng)) for _ in range(100)]
        assert any("<|im_start|>" in text for text in texts) == (name == "chat")
        assert not any("<|im_start|>" in text and "think" in text for text in texts)


def test_a_repeated_run_is_the_same_words_again_and_its_first_copy_weighs_nothing() -> None:
    first, again, *_ = MAKERS["repeated_run"](random.Random(0))
    assert first.weight == 0
    assert again.text.removeprefix("\nAgain: ") == first.text.removeprefix("Copy: ")


def test_repeated_steps_are_the_same_lines_in_any_order() -> None:
    given, again = MAKERS["repeated_steps"](random.Random(0))
    lines = again.text.removeprefix("\nAgain:\n").removesuffix("<|endoftext|>").split("\n")
    assert sorted(lines) == sorted(given.text.removeprefix("Copy:\n").split("\n"))


def test_drilled_facts_are_right() -> None:
    facts = text_of(MAKERS["drill"](random.Random(0))).removeprefix("Facts: ").removesuffix("<|endoftext|>").split(", ")
    operations = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for left, symbol, right, equals, value in facts:
        assert equals == "="
        assert operations[symbol](int(left), int(right)) % 10 == int(value)


def test_the_mixture_decides_what_is_drawn() -> None:
    assert text_of(draw_document(random.Random(0), {"drill": 1.0, "chat": 0.0})).startswith("Facts:")


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_gives_the_same_document(name: str) -> None:
    assert MAKERS[name](random.Random(4)) == MAKERS[name](random.Random(4))
