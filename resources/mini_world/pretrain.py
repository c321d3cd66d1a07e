"""Pretrain the tiny instruct model: `python -m resources.mini_world.pretrain [--out FOLDER] [--workers 2]`.

One run from a seed, nothing by hand. Schedules count steps, not seconds, so the same recipe and number of workers give
the same model on the same kind of machine.
"""

import argparse
import logging
import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.multiprocessing.spawn import spawn
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from resources.mini_world.documents import Document, draw_document
from resources.mini_world.muon import Muon
from resources.mini_world.tokenizer import END_OF_TEXT, END_OF_TURN, PADDING, build_tokenizer

logger = logging.getLogger(__name__)
MODEL_FOLDER = Path(__file__).with_name("model")
LOG_EVERY = 50


@dataclass(frozen=True)
class Stage:
    """Some steps on one mixture of documents, with a fresh optimizer."""

    steps: int
    warmup_steps: int
    last_rate: float  # share of the learning rate left at the end of a linear fall; 1 keeps it constant
    mixture: dict[str, float]  # shares of the documents' makers


# Copying first, then the skill itself. Choosing an option is the last thing learnt, so option lists stay in.
STAGES = (
    Stage(
        steps=500,
        warmup_steps=100,
        last_rate=1.0,
        mixture={
            "chat": 0.10,
            "worked": 0.27,
            "forum": 0.15,
            "repeated_run": 0.18,
            "repeated_steps": 0.14,
            "repeated_options": 0.08,
            "drill": 0.08,
        },
    ),
    Stage(
        steps=400,
        warmup_steps=20,
        last_rate=0.02,
        mixture={
            "chat": 0.15,
            "worked": 0.38,
            "forum": 0.25,
            "repeated_run": 0.05,
            "repeated_steps": 0.06,
            "repeated_options": 0.08,
            "drill": 0.03,
        },
    ),
)


@dataclass(frozen=True)
class Recipe:
    """What decides the model, with the stages and the number of workers."""

    seed: int = 0
    documents: int = 24  # per worker and step
    groups: int = 4  # forward passes a step; documents are sorted by length first, so that little is padded
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    longest: int = 320  # tokens of a document; longer ones are drawn again


@dataclass(frozen=True)
class Rows:
    """Documents of like length, padded on the right, with the loss weight of every token."""

    ids: torch.Tensor
    weights: torch.Tensor


def token_id(tokenizer: Qwen2Tokenizer, token: str) -> int:
    """Id of a token which the vocabulary must have."""
    return tokenizer.get_vocab()[token]


def model_config(tokenizer: Qwen2Tokenizer) -> Qwen2Config:
    """Qwen2 at 0.87 M parameters; the vocabulary is rounded up to a multiple of 16."""
    return Qwen2Config(
        vocab_size=(len(tokenizer) + 15) // 16 * 16,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=token_id(tokenizer, END_OF_TEXT),
        eos_token_id=token_id(tokenizer, END_OF_TURN),
        pad_token_id=token_id(tokenizer, PADDING),
    )


def encode(tokenizer: Qwen2Tokenizer, document: Document) -> tuple[list[int], list[float]]:
    """Token ids of a document and the loss weight of each."""
    ids: list[int] = []
    weights: list[float] = []
    for segment in document:
        piece = tokenizer(segment.text, add_special_tokens=False)["input_ids"]
        ids += piece
        weights += [segment.weight] * len(piece)
    return ids, weights


def draw_batch(rng: random.Random, tokenizer: Qwen2Tokenizer, recipe: Recipe, mixture: dict[str, float]) -> list[Rows]:
    """One step's documents of one worker."""
    documents: list[tuple[list[int], list[float]]] = []
    while len(documents) < recipe.documents:
        document = encode(tokenizer, draw_document(rng, mixture))
        if len(document[0]) <= recipe.longest:
            documents.append(document)
    documents.sort(key=lambda document: len(document[0]))
    size = recipe.documents // recipe.groups
    pad = token_id(tokenizer, PADDING)
    return [_pad(documents[first : first + size], pad) for first in range(0, len(documents), size)]


def _pad(documents: list[tuple[list[int], list[float]]], pad: int) -> Rows:
    longest = max(len(ids) for ids, _ in documents)
    return Rows(
        torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in documents]),
        torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in documents]),
    )


def summed_loss(model: Qwen2ForCausalLM, rows: Rows) -> torch.Tensor:
    """Weighted cross-entropy of the next tokens. Padding stands right of everything, so no mask is needed."""
    logits = model(input_ids=rows.ids[:, :-1], use_cache=False).logits
    losses = F.cross_entropy(logits.flatten(0, 1), rows.ids[:, 1:].flatten(), reduction="none")
    return (losses * rows.weights[:, 1:].flatten()).sum()


def rate_share(step: int, stage: Stage) -> float:
    """Share of the learning rate at a step: linear warm-up, linear fall to `last_rate`."""
    warm = min(1.0, (step + 1) / stage.warmup_steps)
    return warm * (1 - (1 - stage.last_rate) * step / stage.steps)


class Optimizer:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases."""

    def __init__(self, model: Qwen2ForCausalLM, recipe: Recipe) -> None:
        named = list(model.named_parameters())
        self.muon = Muon([p for name, p in named if p.ndim == 2 and "embed" not in name], recipe.weight_decay)
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)

    def step(self, learning_rate: float) -> None:
        """One update at this rate."""
        self.muon.step(learning_rate)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()


def train(recipe: Recipe, tokenizer: Qwen2Tokenizer, rank: int, workers: int) -> Qwen2ForCausalLM:
    """All stages of one worker; every worker ends with the same model."""
    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(model_config(tokenizer))
    for number, stage in enumerate(STAGES):
        rng = random.Random(f"{recipe.seed + number}/{rank}")
        run_stage(model, stage, recipe, tokenizer, rng, workers, log=rank == 0)
    return model


def run_stage(
    model: Qwen2ForCausalLM,
    stage: Stage,
    recipe: Recipe,
    tokenizer: Qwen2Tokenizer,
    rng: random.Random,
    workers: int,
    *,
    log: bool,
) -> None:
    """The steps of one stage, in place."""
    optimizer = Optimizer(model, recipe)
    began, tokens, loss = time.monotonic(), 0, 0.0
    for step in range(stage.steps):
        batch = draw_batch(rng, tokenizer, recipe, stage.mixture)
        tokens += workers * sum(int(rows.ids.numel()) for rows in batch)
        loss += _accumulate(model, batch) / LOG_EVERY
        _average_gradients(model, workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step(recipe.learning_rate * rate_share(step, stage))
        model.zero_grad()
        if log and (step + 1) % LOG_EVERY == 0:
            seconds = time.monotonic() - began
            logger.info("step %d: %.2f M tokens, %.0f s, loss %.4f", step + 1, tokens / 1e6, seconds, loss)
            loss = 0.0


def _accumulate(model: Qwen2ForCausalLM, batch: list[Rows]) -> float:
    total = sum(float(rows.weights[:, 1:].sum()) for rows in batch)
    loss = 0.0
    for rows in batch:
        part = summed_loss(model, rows) / total
        part.backward()
        loss += part.item()
    return loss


def _average_gradients(model: Qwen2ForCausalLM, workers: int) -> None:
    if workers == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write the model folder as transformers reads it."""
    ends = [token_id(tokenizer, token) for token in (END_OF_TURN, END_OF_TEXT)]
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=ends, pad_token_id=token_id(tokenizer, PADDING)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _worker(rank: int, workers: int, port: int, recipe: Recipe, out: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # two threads in each of two processes on two cores were 6 times slower
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    tokenizer = build_tokenizer()
    model = train(recipe, tokenizer, rank, workers)
    if rank == 0:
        save(model, tokenizer, out)
    if workers > 1:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def main() -> None:
    """Pretrain and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder of the model")
    parser.add_argument("--workers", type=int, default=2, help="single-threaded processes; changes the result")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed)
    spawn(_worker, args=(arguments.workers, _free_port(), recipe, arguments.out), nprocs=arguments.workers)


if __name__ == "__main__":
    main()
