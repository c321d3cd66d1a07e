"""The mini world's tokenizer: one token per word of the world, bytes for everything else, Qwen's special tokens.

A word keeps its leading space, so decoding gives the text back exactly; a digit is always one token.
"""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from resources.mini_world.documents import MAKERS, RUN_WORDS

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>")
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
# A box opener, a step label, a word, a digit, a sign, or one white-space character.
WORD_PATTERN = r" ?\\boxed\{| ?\(\p{N}+\)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"
# Every word of the world occurs within the first few hundred documents of each maker.
DOCUMENTS_PER_MAKER = 3000
VOCABULARY_SEED = 0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from the world's own text and nothing else."""
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *_words(splitter)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    # ignore_merges: a word of the vocabulary is taken whole; any other falls apart into bytes, as there are no merges.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|fim_pad|>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8").rstrip("\n"),
    )


def _words(splitter: pre_tokenizers.Sequence) -> list[str]:
    rng = random.Random(VOCABULARY_SEED)
    texts = ["".join(segment.text for segment in make(rng)) for make in MAKERS.values() for _ in range(DOCUMENTS_PER_MAKER)]
    texts.append(" " + " ".join(RUN_WORDS))
    words: set[str] = set()
    for text in texts:
        for special in SPECIAL_TOKENS:
            text = text.replace(special, "\n")
        words.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    return sorted(words)
