"""The text of a rollout: rendered and tokenised once, with every token's characters, role and place in the loss.

The training text is Qwen's chat format with the thinking inside the assistant's turn (s1K-1.1 as the paper trains on
it); the authors' capture text leaves out `<|im_end|>` after the first turns and brings its own system line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

import numpy as np

from resources.errors import BadInput, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TextForm = Literal["training", "authors_capture"]
AUTHORS_SYSTEM = "You are a helpful mathematics assistant."
"""System line of the authors' capture and ablation scripts."""
START, END = "<|im_start|>", "<|im_end|>"
END_TOKENS = (END, "<|endoftext|>")
"""What ends a generated text (Qwen2.5's generation settings, which vLLM follows and s1 so did)."""
THINK, ANSWER = f"{START}think\n", f"{START}answer\n"
_SYSTEM_TURN = re.compile(re.escape(f"{START}system\n") + "(.*)" + re.escape(f"{END}\n"), re.DOTALL)


class Role(IntEnum):
    """Which part of the conversation a token belongs to."""

    SYSTEM = 0
    USER = 1
    THINK = 2
    ANSWER = 3
    CONTROL = 4
    """What the template writes: special tokens, role names, the line breaks after them."""


@dataclass(frozen=True)
class Rollout:
    """One row of s1K-1.1, cleaned by `clean`."""

    question: str
    thinking: str
    attempt: str


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendering with one role."""

    text: str
    role: Role
    loss: bool = False


@dataclass(frozen=True)
class Tokenised:
    """The tokens of one text; T of them."""

    ids_T: np.ndarray
    """int32."""
    span_T2: np.ndarray
    """int32 characters [start, end): each belongs to the token with its last byte, so joined spans are the text."""
    role_T: np.ndarray
    """int8, `Role` of the token's first character."""
    loss_T: np.ndarray
    """bool: the assistant's tokens, through `<|im_end|>`."""


def clean(question: str, thinking: str, attempt: str) -> Rollout:
    """s1's rules: strip thinking and attempt; put "Answer: " before an attempt that has no "Answer:" (s1, data)."""
    answered = attempt if "Answer:" in attempt else f"Answer: {attempt}"
    return Rollout(question, thinking.strip(), answered.strip())


class Renderer:
    """Texts of rollouts for one tokenizer; refuses a chat template that is not Qwen's before any work is done."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", form: TextForm) -> None:
        """Raises BadInput when the tokenizer's template gives another text than these pieces do."""
        self._tokenizer = tokenizer
        self._form: TextForm = form
        self._system = AUTHORS_SYSTEM if form == "authors_capture" else self._template_system()
        if form == "training":
            # a template that trims, or drops the thinking of a model of another kind, is found out too
            probe = Rollout(" Q\n", "T</think>T", "A")
            if "".join(piece.text for piece in self.pieces(probe)) != self._by_template(probe):
                raise BadInput(
                    "the tokenizer's chat template does not write turns as Qwen2.5's does: use a Qwen2.5 model"
                )

    def pieces(self, rollout: Rollout) -> tuple[Piece, ...]:
        """The text of a rollout, by role."""
        turn_end = "" if self._form == "authors_capture" else END
        tail = () if self._form == "authors_capture" else (Piece("\n", Role.CONTROL),)
        return (
            Piece(f"{START}system\n", Role.CONTROL),
            Piece(self._system, Role.SYSTEM),
            Piece(f"{turn_end}\n{START}user\n", Role.CONTROL),
            Piece(rollout.question, Role.USER),
            Piece(f"{turn_end}\n{START}assistant\n", Role.CONTROL),
            Piece(THINK, Role.CONTROL, loss=True),
            Piece(rollout.thinking, Role.THINK, loss=True),
            Piece(f"\n{ANSWER}", Role.CONTROL, loss=True),
            Piece(rollout.attempt, Role.ANSWER, loss=True),
            Piece(END, Role.CONTROL, loss=True),
            *tail,
        )

    def _by_template(self, rollout: Rollout) -> str:
        messages = [{"role": "user", "content": rollout.question}, {"role": "assistant", "content": assistant(rollout)}]
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError as error:
            raise BadInput(
                f"the tokenizer's chat template fails ({one_line(str(error))}): use a Qwen2.5 model"
            ) from error
        assert isinstance(text, str)
        return text

    def _template_system(self) -> str:
        """The system line that the template puts before a conversation without one (Qwen2.5: "You are Qwen, …")."""
        head = self._by_template(Rollout("Q", "T", "A")).split(f"{START}user\n", 1)[0]
        found = _SYSTEM_TURN.fullmatch(head)
        if found is None:
            raise BadInput("the tokenizer's chat template writes no system turn first: use a Qwen2.5 model")
        return found[1]


def assistant(rollout: Rollout) -> str:
    """The assistant's turn as the chat template takes it."""
    return f"{THINK}{rollout.thinking}\n{ANSWER}{rollout.attempt}"


def tokenise(tokenizer: "PreTrainedTokenizerFast", rendered: Sequence[tuple[Piece, ...]]) -> list[Tokenised]:
    """Token ids, character spans, roles and loss mask of each rendering."""
    texts = ["".join(piece.text for piece in pieces) for pieces in rendered]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    rows = zip(texts, rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [_tokenised(text, pieces, ids, offsets) for text, pieces, ids, offsets in rows]


def partition(offsets_T2: np.ndarray, num_characters: int) -> np.ndarray:
    """Spans that divide the text, from a tokenizer's offsets.

    A character split over several tokens is in the offsets of each of them: the last keeps it. Characters in no
    token's offsets go to the token after them.
    """
    starts_T, ends_T = offsets_T2[:, 0], offsets_T2[:, 1]
    next_start_T = np.append(np.minimum.accumulate(starts_T[::-1])[::-1][1:], num_characters)
    ends_T = np.maximum.accumulate(np.minimum(ends_T, next_start_T))
    ends_T[-1] = num_characters
    return np.stack([np.concatenate([[0], ends_T[:-1]]), ends_T], axis=1).astype(np.int32)


def _tokenised(
    text: str, pieces: tuple[Piece, ...], ids: Sequence[int], offsets: Sequence[tuple[int, int]]
) -> Tokenised:
    span_T2 = partition(np.array(offsets, np.int32), len(text))
    lengths = [len(piece.text) for piece in pieces]
    role_C = np.repeat(np.array([piece.role for piece in pieces], np.int8), lengths)
    loss_C = np.repeat(np.array([piece.loss for piece in pieces]), lengths)
    first_T = np.minimum(span_T2[:, 0], len(text) - 1)
    return Tokenised(np.array(ids, np.int32), span_T2, role_C[first_T], loss_C[first_T])
