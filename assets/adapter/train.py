"""The two verbs of the room: train the adapter, train all weights; or take either from where it was published."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel

from assets.adapter.artifact import component_norms
from assets.adapter.checkpoint import Checkpoints
from assets.adapter.config import TRAIN, FullFinetuneConfig, LoraConfig, TrainingConfig
from assets.adapter.examples import Examples
from assets.adapter.flops import peak_flops, training_work
from assets.adapter.loop import CurveRow, Run, train
from assets.adapter.lora_model import wear_adapter, write_adapter
from assets.adapter.objective import RolloutLoss
from assets.adapter.optional import missing_for_kernels
from assets.adapter.parallel import FullySharded, Processes, Replicas, Strategy, joined
from assets.adapter.plan import learning_rate, plan_steps
from assets.adapter.published import base_parameters, take_adapter, take_model
from assets.adapter.telemetry import Telemetry
from assets.dataset.artifact import S1kDataset
from resources.adapters import Adapter
from resources.compute import ComputeConfig
from resources.models import ModelConfig, load_architecture, load_base, load_tokenizer, same_model
from resources.progress import Progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CURVE_POINTS = 500
"""Most rows of the loss curve in the manifest; the artifact holds all of them."""


class TrainingMetrics(BaseModel, frozen=True):
    """What a training did; of a published checkpoint only what can be read from its files."""

    source: str
    """`train`, or where the checkpoint was published."""
    steps: int = 0
    first_loss: float | None = None
    """Mean over the assistant's tokens of the first batch."""
    final_loss: float | None = None
    """The same of the last batch."""
    last_epoch_loss: float | None = None
    """Mean over the batches of the last epoch."""
    tokens: int = 0
    """Computed in all epochs, prompts included."""
    truncated_tokens: int = 0
    """Left out of each epoch by the block size."""
    rollouts_without_loss: list[int] = []
    """Left out of every epoch: their prompts fill the block."""
    trainable_parameters: int = 0
    parameters: int = 0
    """Of base model and adapter."""
    trainable_share: float = 0.0
    tokens_per_second: float | None = None
    mfu: float | None = None
    """Of the FLOP that the mathematics needs; recomputation earns nothing."""
    loss_curve: list[dict[str, float]] = []
    component_norms: list[dict[str, str | int | float]] = []


def train_lora(
    *,
    model: ModelConfig,
    lora: LoraConfig,
    s1k_dataset: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> TrainingMetrics:
    """Fill `out` with a PEFT adapter (paper, section 2.1).

    Raises:
        BadInput: for a config that does not fit the model, and for a loss that is not finite.
    """
    if lora.source != TRAIN:
        return _published_adapter(lora, model, out, progress)
    with joined(compute.device, needs_group=False) as processes:
        lora.components(load_architecture(model).num_hidden_layers)  # wrong ones, before the weights are read
        examples = Examples(S1kDataset.open(s1k_dataset), lora.block_size)
        if processes.first and compute.device == "cuda" and (missing := missing_for_kernels()):
            progress.say(f"{missing}: torch's own kernels train a tenth slower")
        adapted = wear_adapter(load_base(model, processes.device), lora, model.name)
        objective = RolloutLoss(adapted, processes.device, compute.recomputed_layers, autocast=None)
        run = _run(objective, lora, model, examples, scratch, progress, compute, processes, Replicas(processes))
        curve = _trained(run, out)
        if processes.first:
            write_adapter(adapted, out)
        norms = component_norms(Adapter.open(out)) if processes.first else []
        return _metrics(run, curve, adapted).model_copy(update={"component_norms": norms})


def train_full(
    *,
    model: ModelConfig,
    full_finetune: FullFinetuneConfig,
    s1k_dataset: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
) -> TrainingMetrics:
    """Fill `out` with a finetuned model in the base model's precision; trained from float32 masters (s1).

    On GPUs the weights are sharded; on CPU processes each holds all of a model small enough for a CPU.

    Raises:
        BadInput: for a config that does not fit the model, and for a loss that is not finite.
    """
    if full_finetune.source != TRAIN:
        return _published_model(full_finetune, model, out)
    sharded = compute.device == "cuda"
    with joined(compute.device, needs_group=sharded) as processes:
        return finetune(model, full_finetune, s1k_dataset, out, scratch, progress, compute, processes, sharded=sharded)


def finetune(
    model: ModelConfig,
    training: FullFinetuneConfig,
    s1k_dataset: Path,
    out: Path,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
    processes: Processes,
    *,
    sharded: bool,
) -> TrainingMetrics:
    """Train all weights, sharded or replicated, and write the model's folder."""
    examples = Examples(S1kDataset.open(s1k_dataset), training.block_size)
    precision = getattr(torch, model.dtype)
    base = load_base(model, "cpu" if sharded else processes.device).requires_grad_(True)
    autocast = None if sharded or precision == torch.float32 else precision
    objective = RolloutLoss(base, processes.device, compute.recomputed_layers, autocast)
    strategy: Strategy
    if sharded:
        strategy = FullySharded(processes)
        strategy.shard(objective, precision)
    else:
        base.float()
        strategy = Replicas(processes)
    run = _run(objective, training, model, examples, scratch, progress, compute, processes, strategy)
    curve = _trained(run, out)
    _write_model(base, precision, model, out, processes, sharded=sharded)
    return _metrics(run, curve, base)


def _run(
    objective: RolloutLoss,
    training: TrainingConfig,
    model: ModelConfig,
    examples: Examples,
    scratch: Path,
    progress: Progress,
    compute: ComputeConfig,
    processes: Processes,
    strategy: Strategy,
) -> Run:
    architecture: PretrainedConfig = objective.base.config
    whole = isinstance(training, FullFinetuneConfig)
    title = "full finetune" if whole else "LoRA"
    work = training_work(architecture, trains_weights=whole)
    peak = peak_flops(processes.device, getattr(torch, model.dtype)) * processes.count
    telemetry = Telemetry(title, progress, scratch, work, peak, speaks=processes.first)
    return Run(
        objective=objective,
        parameters={name: p for name, p in objective.named_parameters() if p.requires_grad},
        examples=examples,
        training=training,
        compute=compute,
        processes=processes,
        strategy=strategy,
        checkpoints=Checkpoints(scratch / "checkpoints", processes, strategy.num_shards, telemetry.say),
        telemetry=telemetry,
    )


def _trained(run: Run, out: Path) -> list[CurveRow]:
    steps = plan_steps(tuple(run.examples.lengths), run.training)
    if not any(learning_rate(step.number, len(steps), run.training) for step in steps):
        run.telemetry.say(
            "nothing will be trained: there is one step, and the first of a warm-up has rate 0; set warmup_ratio to 0, "
            "or take a smaller batch_size or more epochs"
        )
    curve = train(run, steps)
    run.telemetry.close(curve, out)
    return curve


def _write_model(
    base: "PreTrainedModel",
    precision: torch.dtype,
    model: ModelConfig,
    out: Path,
    processes: Processes,
    *,
    sharded: bool,
) -> None:
    """transformers' files in the base model's precision, with the tokenizer beside them."""
    if sharded:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(base, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    else:
        state = base.state_dict()
    if processes.first:
        rounded = {name: tensor.to(precision) for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
        base.save_pretrained(out, state_dict=rounded)
        base.config.dtype = precision  # save_pretrained writes that of the masters
        base.config.save_pretrained(out)
        load_tokenizer(model).save_pretrained(out)
    processes.wait()


def _metrics(run: Run, curve: list[CurveRow], model: torch.nn.Module) -> TrainingMetrics:
    last = [row["loss"] for row in curve if row["epoch"] == curve[-1]["epoch"]]
    trainable = sum(p.numel() for p in run.parameters.values())
    everything = sum(p.numel() for p in model.parameters())
    every = -(-len(curve) // CURVE_POINTS)
    return TrainingMetrics(
        source=TRAIN,
        steps=len(curve),
        first_loss=curve[0]["loss"],
        final_loss=curve[-1]["loss"],
        last_epoch_loss=sum(last) / len(last),
        tokens=int(curve[-1]["tokens"]),
        truncated_tokens=run.examples.truncated_tokens,
        rollouts_without_loss=run.examples.without_loss,
        trainable_parameters=trainable,
        parameters=everything,
        trainable_share=trainable / everything,
        tokens_per_second=run.telemetry.tokens_per_second,
        mfu=run.telemetry.mfu,
        loss_curve=[row for row in curve if row["step"] % every == 0 or row is curve[-1]],
    )


def _published_adapter(lora: LoraConfig, model: ModelConfig, out: Path, progress: Progress) -> TrainingMetrics:
    adapter = take_adapter(lora.source, lora.revision, model, out)
    if adapter.base_model and not same_model(adapter.base_model, model.name):
        progress.say(
            f"{lora.source} was trained on {adapter.base_model}, says its adapter_config.json, and model.name is "
            f"{model.name}: worn by other weights it means nothing"
        )
    size = sum(a.numel() for a in adapter.A.values()) + sum(b.numel() for b in adapter.B.values())
    everything = base_parameters(model) + size
    return TrainingMetrics(
        source=lora.source,
        trainable_parameters=size,
        parameters=everything,
        trainable_share=size / everything,
        component_norms=component_norms(adapter),
    )


def _published_model(full_finetune: FullFinetuneConfig, model: ModelConfig, out: Path) -> TrainingMetrics:
    take_model(full_finetune.source, full_finetune.revision, model, out)
    count = base_parameters(model)
    return TrainingMetrics(
        source=full_finetune.source, trainable_parameters=count, parameters=count, trainable_share=1.0
    )
