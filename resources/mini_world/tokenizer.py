"""The mini world's tokenizer: Qwen2's own class and splitting, with every word of the world as one token.

Bytes cover everything else, and decoding gives the text back exactly. A digit is a token of its own, as in Qwen2.5.
"""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer

from resources.mini_world.documents import MAKERS, RUN_WORDS

END_OF_TEXT, END_OF_TURN, PADDING = "<|endoftext|>", "<|im_end|>", "<|fim_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", END_OF_TURN, PADDING)
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
# Every word of the world occurs within the first few hundred documents of each maker.
DOCUMENTS_PER_MAKER = 2000
VOCABULARY_SEED = 0
# More merges than the words need: merging ends when every word is whole.
MOST_TOKENS = 5000


def build_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer, made from the world's own text and nothing else."""
    splitter = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    merger = Tokenizer(models.BPE())
    merger.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    merger.train_from_iterator(_texts(), trainer)
    model = json.loads(merger.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],  # pyright: ignore[reportArgumentType] (pairs, not strings)
        unk_token=END_OF_TEXT,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8").rstrip("\n"),
    )
    special: list[str | AddedToken] = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer.add_tokens(special, special_tokens=True)
    return tokenizer


def _texts() -> list[str]:
    """Documents of every kind, without the special tokens, and every word of the copied runs."""
    rng = random.Random(VOCABULARY_SEED)
    texts = [
        "".join(segment.text for segment in make(rng)) for make in MAKERS.values() for _ in range(DOCUMENTS_PER_MAKER)
    ]
    for special in SPECIAL_TOKENS:
        texts = [text.replace(special, "\n") for text in texts]
    return [*texts, *[f"{' '.join(RUN_WORDS)} system user assistant think answer" for _ in range(2)]]
