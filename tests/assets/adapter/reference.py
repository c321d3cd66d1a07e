"""The recipe a second time, plainly: no packing, no PEFT, full logits, one rollout at a time, AdamW by hand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import PreTrainedModel

from assets.adapter.config import LoraConfig, TrainingConfig
from assets.dataset.artifact import S1kDataset
from resources.components import components


@dataclass
class Reference:
    """What the plain training left behind."""

    losses: list[float]
    weights: dict[str, torch.Tensor]


def batches(dataset: S1kDataset, training: TrainingConfig) -> list[list[int]]:
    """The documented order: numpy's permutation of the rows, seeded with (seed, epoch)."""
    found: list[list[int]] = []
    for epoch in range(training.epochs):
        order = np.random.default_rng([training.seed, epoch]).permutation(dataset.num_rollouts)
        ids = [dataset.rollout_ids[i] for i in order]
        found += [ids[i : i + training.batch_size] for i in range(0, len(ids), training.batch_size)]
    return found


def rate(step: int, total: int, training: TrainingConfig) -> float:
    """Linear warm-up from 0, then half a cosine to 0; `step` from 0."""
    warmup = math.ceil(total * training.warmup_ratio)
    if step < warmup:
        return training.learning_rate * step / warmup
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def adapted(model: PreTrainedModel, weights: dict[str, torch.Tensor], lora: LoraConfig) -> dict[str, torch.Tensor]:
    """The model's weights with scale * B @ A added, as differentiable functions of A and B."""
    scale = lora.alpha / math.sqrt(lora.rank)
    base = dict(model.named_parameters())
    return {
        f"{c.module}.weight": base[f"{c.module}.weight"].detach() + scale * weights[f"{c.id}.B"] @ weights[f"{c.id}.A"]
        for c in components(model.config.num_hidden_layers)
    }


def train_plainly(
    model: PreTrainedModel, dataset: S1kDataset, training: TrainingConfig, weights: Mapping[str, torch.Tensor]
) -> Reference:
    """Train `weights` (A and B by component, or the model's own by name) for the whole recipe."""
    steps = batches(dataset, training)
    first = {name: torch.zeros_like(w) for name, w in weights.items()}
    second = {name: torch.zeros_like(w) for name, w in weights.items()}
    weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    losses: list[float] = []
    for number, batch in enumerate(steps):
        total, count = torch.zeros(()), 0
        for r in batch:
            ids = torch.from_numpy(dataset.token_ids(r)).long()
            labels = ids.masked_fill(~torch.from_numpy(dataset.loss_mask(r)), -100)
            used = adapted(model, weights, training) if isinstance(training, LoraConfig) else weights
            logits = functional_call(model, used, (ids[None],)).logits[0]
            total = total + F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
            count += int((labels[1:] != -100).sum())
        loss = total / count
        grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        losses.append(loss.item())
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        shrink = min(1.0, training.max_grad_norm / (norm + 1e-6))
        lr, t = rate(number, len(steps), training), number + 1
        with torch.no_grad():
            for name, w in weights.items():
                g = grads[name] * shrink
                decay = 0.0 if name.endswith(("bias", "norm.weight")) else training.weight_decay
                first[name] = training.beta1 * first[name] + (1 - training.beta1) * g
                second[name] = training.beta2 * second[name] + (1 - training.beta2) * g**2
                mean, square = first[name] / (1 - training.beta1**t), second[name] / (1 - training.beta2**t)
                w -= lr * decay * w
                w -= lr * mean / (square.sqrt() + training.epsilon)
    return Reference(losses, {name: w.detach() for name, w in weights.items()})
