"""Train, calibrate, export and evaluate the sparse autoencoder: the call behind `batchtopk_sae`.

Shapes: B tokens, D columns of the shards, E columns that enter, F latents.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel

from assets.dataset.artifact import S1kDataset
from assets.sae import figures
from assets.sae.artifact import Sae, write_sae
from assets.sae.baselines import Budget, compare
from assets.sae.batchtopk import fold
from assets.sae.config import SAMPLE_TOKENS, SaeConfig
from assets.sae.effect import Effect, measure_effect, replay
from assets.sae.evaluate import Evaluation, Held, by_projection, evaluate, write_tables
from assets.sae.export import to_sae, write_dictionary_learning
from assets.sae.fit import Fit, Fitted, not_finite
from assets.sae.shuffle import Census, Order, Rows, Split, entering_columns, split_rollouts
from assets.sae.threshold import quantile_threshold
from resources.compute import ComputeConfig
from resources.errors import BadInput
from resources.models import ModelConfig, load_adapted
from resources.progress import Progress
from resources.shards import Shards, StateBatch

CHECKPOINT = "checkpoint.safetensors"
BLOCK = 4096
"""Tokens per batch of calibration and evaluation."""


class SaeMetrics(BaseModel, frozen=True):
    """What the training measured. Everything but `training_*` and the curve is on held-out rollouts."""

    d_in: int
    """Columns that entered."""
    d_sae: int
    k: int
    steps: int
    training_tokens: int
    """Distinct tokens, each seen once per epoch."""
    training_tokens_per_second: float
    live_latents: int
    """Fired on one of the last `sae.dead_after_tokens` training tokens, or of as many as training saw if it saw fewer
    distinct ones."""
    dead_latents: int
    threshold: float
    """On scores, fixed: the exact quantile on calibration rollouts."""
    threshold_moving: float
    """The moving average of the training batches' thresholds."""
    l0_error: float
    """(held-out L0 - k) / k."""
    constant_columns: list[str]
    """Components whose state never moved in the first sample; they are kept."""
    held_out: Evaluation
    effect: Effect | None
    """None when no rollout was asked for, or none of their first `sae.effect_tokens` tokens was captured."""
    by_projection: list[dict[str, str | float]]
    baselines: list[dict[str, str | float]]
    loss_curve: list[dict[str, float]]


@dataclass(frozen=True)
class _Data:
    shards: Shards
    census: Census
    split: Split
    entering: np.ndarray

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Components that entered."""
        return tuple(self.shards.columns[i] for i in self.entering)


def train(
    *,
    model: ModelConfig,
    sae: SaeConfig,
    activation_shards: Path,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> SaeMetrics:
    """Fill `out` with the trained SAE and return what was measured. Resumes from `scratch`.

    Raises:
        BadInput: for shards that do not fit the config, are not finite, or hold too few tokens or rollouts.
    """
    data = _open(sae, activation_shards)
    latents = sae.expansion * len(data.entering)
    order = Order(data.census.rows(data.split.training, data.entering), sae.batch_tokens, sae.shuffle_tokens, sae.seed)
    fit = Fit(sae, order, latents, compute.device)
    fitted = fit.run(progress, "SAE step", scratch / CHECKPOINT)
    trained = _calibrated(sae, data, fitted, out, compute.device)
    write_sae(out, trained, {"preset": sae.preset, "seed": sae.seed, "model_name": model.name})
    write_dictionary_learning(out, trained)
    dead_F = fitted.silent_F >= min(sae.dead_after_tokens, order.distinct_tokens(fit.steps))
    center_E = _mean_state(order, compute.device)
    held = _held_out(sae, data, trained, dead_F, center_E)
    budget = Budget(sae, order, fitted.scale, latents, center_E, compute.device, scratch)
    write_tables(out, held, data.names)
    figures.draw(out, fitted.counters.curve, held, data.names)
    return SaeMetrics(
        d_in=len(data.entering),
        d_sae=latents,
        k=sae.k,
        steps=fit.steps,
        training_tokens=order.distinct_tokens(fit.steps),
        training_tokens_per_second=fitted.tokens_per_second,
        live_latents=int((~dead_F).sum()),
        dead_latents=int(dead_F.sum()),
        threshold=trained.threshold,
        threshold_moving=fitted.counters.threshold or 0.0,
        l0_error=(held.summary.l0 - sae.k) / sae.k,
        constant_columns=[data.names[i] for i in (~fitted.scale.moves_D).nonzero().flatten().tolist()],
        held_out=held.summary,
        effect=_effect(sae, data, trained, model, s1k_dataset, lora_checkpoint, progress, compute.device),
        by_projection=by_projection(data.names, held.explained_E),
        baselines=_baselines(data, held, budget, progress),
        loss_curve=fitted.counters.curve,
    )


def _open(sae: SaeConfig, folder: Path) -> _Data:
    shards = Shards.open(folder)
    census = Census.take(shards)
    split = split_rollouts(census.rollouts, sae.held_out_fraction, sae.held_out_seed)
    return _Data(shards, census, split, entering_columns(sae, shards.columns))


def _states(rows: Rows, most: int, device: str) -> Iterator[torch.Tensor]:
    for part in rows.in_order(most):
        for start in range(0, len(part), BLOCK):
            state_BD = torch.from_numpy(part[start : start + BLOCK].astype(np.float32)).to(device)
            if not bool(torch.isfinite(state_BD).all()):
                raise BadInput(not_finite(rows.shards))
            yield state_BD


def _calibrated(sae: SaeConfig, data: _Data, fitted: Fitted, out: Path, device: str) -> Sae:
    folded = fold(sae, fitted.weights, fitted.scale.scale_D)
    rows = data.census.rows(data.split.calibration, data.entering)
    threshold = quantile_threshold(
        folded, _states(rows, sae.calibration_tokens, device), sae.k, fitted.counters.threshold or 0.0
    )
    return to_sae(folded, data.shards.columns, torch.from_numpy(data.entering), sae.k, threshold, out)


def _mean_state(order: Order, device: str) -> torch.Tensor:
    """Of the training sample: the centre of every dictionary's cosine, so that they compare."""
    return torch.from_numpy(order.sample(SAMPLE_TOKENS)).to(device).double().mean(dim=0)


def _held_out(sae: SaeConfig, data: _Data, trained: Sae, dead_F: torch.Tensor, center_E: torch.Tensor) -> Held:
    every, device = np.arange(len(data.shards.columns)), str(center_E.device)
    states = _states(data.census.rows(data.split.evaluation, every), sae.evaluation_tokens, device)
    return evaluate(trained, states, torch.from_numpy(data.entering).to(device), dead_F, center_E)


def _baselines(data: _Data, held: Held, budget: Budget, progress: Progress) -> list[dict[str, str | float]]:
    sae, summary = budget.config, held.summary
    ours = {"dictionary": "batchtopk", "fvu": summary.fvu, "l0": summary.l0, "cosine": summary.cosine}
    states = _states(data.census.rows(data.split.evaluation, data.entering), sae.evaluation_tokens, budget.device)
    return [ours, *compare(budget, states, progress)]


def _effect(
    sae: SaeConfig,
    data: _Data,
    trained: Sae,
    model: ModelConfig,
    s1k_dataset: Path,
    lora_checkpoint: Path,
    progress: Progress,
    device: str,
) -> Effect | None:
    if sae.effect_rollouts == 0:
        return None
    dataset = S1kDataset.open(s1k_dataset)
    rollouts = [replay(trained, data.entering, captured, dataset, device) for captured in _captured(sae, data)]
    if not rollouts:
        return None
    return measure_effect(load_adapted(model, lora_checkpoint, device), data.names, rollouts, progress)


def _captured(sae: SaeConfig, data: _Data) -> Iterator[StateBatch]:
    """What was captured of the first tokens of the rollouts for the effect, where anything was."""
    for r in data.split.evaluation[: sae.effect_rollouts].tolist():
        whole = data.shards.rollout(r)
        first = whole.rows(slice(int(np.searchsorted(whole.position_B, sae.effect_tokens))))
        if len(first):
            yield first
