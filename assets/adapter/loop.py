"""The one training loop: adapter or all weights, one process or many, always the same gradient.

A step's gradient is that of the mean loss over the predicted tokens of its whole batch, however the batch is divided
into passes and among processes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from assets.adapter.checkpoint import Checkpoints
from assets.adapter.config import TrainingConfig
from assets.adapter.examples import Examples
from assets.adapter.objective import RolloutLoss
from assets.adapter.parallel import Processes, Strategy, local_part
from assets.adapter.plan import Step, divide, learning_rate
from assets.adapter.telemetry import Telemetry
from resources.compute import ComputeConfig
from resources.errors import BadInput, Interrupted

CurveRow = dict[str, float]
"""One optimiser step, with the columns of `artifact.CURVE_SCHEMA`."""


@dataclass(frozen=True)
class Run:
    """What one training works with."""

    objective: RolloutLoss
    parameters: dict[str, torch.nn.Parameter]
    """The trainable ones, by name."""
    examples: Examples
    training: TrainingConfig
    compute: ComputeConfig
    processes: Processes
    strategy: Strategy
    checkpoints: Checkpoints
    telemetry: Telemetry


def train(run: Run, steps: Sequence[Step]) -> list[CurveRow]:
    """Take every step that no checkpoint holds yet; returns the whole curve.

    Raises:
        BadInput: when a loss or gradient is not finite; the last checkpoint stays.
        Interrupted: when the walltime is nearly over; the state is saved.
    """
    optimiser = adamw(run.parameters, run.training)
    curve = run.checkpoints.resume(run.parameters, optimiser)
    if curve:
        run.telemetry.say(f"going on after step {len(curve)} of {len(steps)}")
    for step in steps[len(curve) :]:
        rate = learning_rate(step.number, len(steps), run.training)
        loss = accumulate(run, step)
        grad_norm = clip(run)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise BadInput(
                f"step {step.number}: loss {loss}, gradient norm {grad_norm}; rollouts {list(step.rollout_ids)}. "
                f"Lower the learning rate, or take these rollouts out of the dataset; the last checkpoint is kept"
            )
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        lengths, predicted = run.examples.sizes(step.rollout_ids)
        row: CurveRow = {"step": step.number, "epoch": step.epoch, "loss": loss, "learning_rate": rate}
        tokens = sum(lengths) + (curve[-1]["tokens"] if curve else 0)
        curve.append(row | {"grad_norm": grad_norm, "tokens": tokens})
        run.telemetry.step(curve, len(steps), lengths, predicted)
        # All processes must stop at one step: whoever has seen the scheduler's warning tells the others.
        stopping = run.processes.summed(run.telemetry.stopping) > 0
        due = step.number % run.compute.checkpoint_steps == 0
        if step.number < len(steps) and (stopping or (due and run.checkpoints.worth_while())):
            run.checkpoints.save(curve, run.parameters, optimiser)
            if stopping:
                raise Interrupted(f"saved after step {step.number} of {len(steps)}")
    _check_finite(run, len(steps))
    return curve


def _check_finite(run: Run, steps: int) -> None:
    """No later loss would tell what the last step has done."""
    bad = [
        name
        for name, parameter in run.parameters.items()
        if not bool(torch.isfinite(local_part(parameter.detach())).all())
    ]
    if run.processes.summed(float(len(bad))) > 0:
        raise BadInput(
            f"step {steps}, the last, left NaN or infinity in {bad[0] if bad else 'the weights'}: lower the learning "
            "rate or raise epsilon; the last checkpoint is kept"
        )


def adamw(parameters: dict[str, torch.nn.Parameter], training: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW; no decay on biases and norms, as transformers' Trainer does."""
    free = {name for name in parameters if name.endswith("bias") or "norm" in name.split(".")[-2]}
    groups = [
        {"params": [p for name, p in parameters.items() if name not in free], "weight_decay": training.weight_decay},
        {"params": [p for name, p in parameters.items() if name in free], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        eps=training.epsilon,
        fused=True,
    )


def accumulate(run: Run, step: Step) -> float:
    """Leave the gradient of the step's mean loss in every parameter; returns that mean over all processes."""
    rollout_ids = step.rollout_ids
    lengths, predicted = run.examples.sizes(rollout_ids)
    mine = divide(lengths, run.processes.count, run.compute.tokens_per_batch)[run.processes.rank]
    total = torch.zeros((), device=run.processes.device)
    for indices in mine:
        if not indices and not run.strategy.skips_nothing:
            continue
        one = run.examples.one_pass([rollout_ids[i] for i in indices]) if indices else run.examples.nothing()
        loss = run.objective(one) / predicted
        (loss * run.strategy.loss_factor).backward()
        total += loss.detach()
    run.strategy.sum_gradients(run.parameters.values())
    return run.processes.summed(total.item())


def clip(run: Run) -> float:
    """Scale the gradients down to the configured norm; returns the norm before."""
    limit = run.training.max_grad_norm or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), limit)
    full = getattr(norm, "full_tensor", None)
    return float(full() if full else norm)
