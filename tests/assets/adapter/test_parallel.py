"""The same training divided over passes, processes and shards gives the same curve and weights."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from assets.adapter import parallel
from assets.adapter.config import FullFinetuneConfig, LoraConfig, TrainingConfig
from assets.adapter.parallel import check_group, joined
from assets.adapter.train import TrainingMetrics
from resources.adapters import WEIGHTS
from resources.compute import ComputeConfig
from resources.launcher.command import ONE_MACHINE
from tests.assets.adapter.conftest import COMPUTE, World

LORA = LoraConfig(epochs=3, batch_size=5)
"""Nine steps: 5, 5 and 2 rollouts in each epoch, so that two processes never get the same share."""
FULL = FullFinetuneConfig(epochs=3, batch_size=5, learning_rate=1e-3)


def losses(metrics: TrainingMetrics) -> list[float]:
    return [row["loss"] for row in metrics.loss_curve]


def assert_same_weights(one: Path, other: Path, tolerance: float) -> None:
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("tokens", [160, 300, 4096])
def test_accumulation_and_packing_leave_curve_and_adapter_as_they_are(world: World, tokens: int) -> None:
    """160 tokens hold one rollout, 300 hold two or three, 4096 the whole batch."""
    alone, expected = world.lora("alone", LORA, COMPUTE.model_copy(update={"tokens_per_batch": 1}))
    found, metrics = world.lora("packed", LORA, COMPUTE.model_copy(update={"tokens_per_batch": tokens}))
    np.testing.assert_allclose(losses(metrics), losses(expected), atol=1e-5)
    assert_same_weights(found / WEIGHTS, alone / WEIGHTS, 1e-5)


def test_recomputed_activations_leave_the_adapter_as_it_is(world: World) -> None:
    kept, _ = world.lora("kept", LORA)
    one, _ = world.lora("one", LORA, COMPUTE.model_copy(update={"recomputed_layers": 1}))
    every, _ = world.lora("every", LORA, COMPUTE.model_copy(update={"recomputed_layers": None}))
    assert_same_weights(kept / WEIGHTS, one / WEIGHTS, 1e-6)
    assert_same_weights(kept / WEIGHTS, every / WEIGHTS, 1e-6)


def test_a_process_group_that_is_not_what_was_asked_for_ends_the_training_with_both() -> None:
    with joined("cpu", needs_group=True):
        check_group(0, 1, "cpu")
        with pytest.raises(RuntimeError, match="process 0 of 8 over nccl was asked for; this is process 0 of 1 over"):
            check_group(0, 8, "cuda")


class Told(RuntimeError):
    """What ended one process."""


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_fails_alone_does_not_wait_for_the_others_in_the_groups_end(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """NCCL's is a collective call, in which it would wait while the others wait for it."""
    ended: list[int] = []
    monkeypatch.setenv("RANK", str(count - 1))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(parallel, "check_group", lambda *_: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append(count))
    with pytest.raises(Told), joined("cpu", needs_group=True):
        raise Told
    assert ended == [1] * (count == 1)
    with joined("cpu", needs_group=True):
        pass
    assert ended[-1:] == [count]


def test_processes_wait_for_the_one_that_writes_longer_than_nccls_ten_minutes() -> None:
    with joined("cpu", needs_group=True):
        assert dist.group.WORLD is not None
        backend = dist.group.WORLD._get_backend(torch.device("cpu"))
        assert backend.options._timeout == timedelta(hours=2)


@dataclass(frozen=True)
class Job:
    """One training of the two processes."""

    kind: str
    config: TrainingConfig
    dtype: str = "float32"
    recomputed_layers: int | None = 0
    goes_on_from: str = ""
    """Another job, whose scratch folder is used again."""


def two_processes(world: World, jobs: dict[str, Job]) -> dict[str, tuple[Path, list[float]]]:
    shared = ComputeConfig(profile="cpu", processes=2, tokens_per_batch=300, checkpoint_steps=4)
    plan, outs = [], {}
    for name, job in jobs.items():
        outs[name], scratch = world.folders(name)
        scratch = world.folder / f"{job.goes_on_from or name}-scratch"
        folders = {"s1k_dataset": str(world.dataset), "out": str(outs[name]), "scratch": str(scratch)}
        model = world.model.model_dump() | {"dtype": job.dtype}
        compute = shared.model_copy(update={"recomputed_layers": job.recomputed_layers})
        settings = {"model": model, "config": job.config.model_dump(), "compute": compute.model_dump()}
        plan.append({"kind": job.kind, **folders, **settings})
    path = world.folder / "plan.json"
    path.write_text(json.dumps(plan))
    command = [sys.executable, "-m", "torch.distributed.run", *ONE_MACHINE, "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.assets.adapter.ranked", str(path)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {name: (out, json.loads((out / "losses.json").read_text())) for name, out in outs.items()}


@pytest.mark.slow
def test_two_gloo_processes_give_the_single_process_result(world: World) -> None:
    """Replicas for the adapter and the full finetune, FSDP2 shards for the full finetune, these also in bfloat16."""
    lora, lora_metrics = world.lora("lora", LORA)
    full, full_metrics = world.full("full", FULL)
    found = two_processes(
        world,
        {
            "lora-2": Job("lora", LORA),
            "full-2": Job("full", FULL),
            "sharded-2": Job("sharded", FULL),
            "sharded-again": Job("sharded", FULL, goes_on_from="sharded-2"),
            "sharded-recomputed": Job("sharded", FULL, recomputed_layers=None),
            "sharded-half": Job("sharded", FULL, dtype="bfloat16"),
        },
    )
    for name, folder, weights, metrics, tolerance in (
        ("lora-2", lora, WEIGHTS, lora_metrics, 1e-5),
        ("full-2", full, "model.safetensors", full_metrics, 1e-5),
        ("sharded-2", full, "model.safetensors", full_metrics, 1e-4),
        ("sharded-recomputed", full, "model.safetensors", full_metrics, 1e-4),
    ):
        out, curve = found[name]
        np.testing.assert_allclose(curve, losses(metrics), atol=tolerance)
        assert_same_weights(out / weights, folder / weights, tolerance)
    assert losses(full_metrics)[0] - losses(full_metrics)[-1] > 0.3
    sharded, again = (found[name][0] / "model.safetensors" for name in ("sharded-2", "sharded-again"))
    assert again.read_bytes() == sharded.read_bytes()
    assert "going on after step 8 of 9" in (again.parent / "lines.txt").read_text()
    assert "going on" not in (sharded.parent / "lines.txt").read_text()
    half, curve = found["sharded-half"]
    np.testing.assert_allclose(curve, losses(full_metrics), rtol=0.02)
    assert {tensor.dtype for tensor in load_file(half / "model.safetensors").values()} == {torch.bfloat16}
