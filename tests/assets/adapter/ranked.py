"""What each of two gloo processes runs in the distributed tests:
torchrun --nproc-per-node 2 -m tests.assets.adapter.ranked PLAN_JSON
"""

import json
import sys
from pathlib import Path

from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.adapter.parallel import Processes, joined
from assets.adapter.train import TrainingMetrics, finetune, train_full, train_lora
from resources.compute import ComputeConfig
from resources.models import ModelConfig
from resources.progress import Progress


def main(plan: Path) -> None:
    """Run every training of the plan, one after the other, in one process group."""
    with joined("cpu", needs_group=True) as processes:
        for job in json.loads(plan.read_text()):
            lines: list[str] = []
            metrics = _train(job, processes, lines)
            if processes.first:
                curve = [row["loss"] for row in metrics.loss_curve]
                (Path(job["out"]) / "losses.json").write_text(json.dumps(curve))
                (Path(job["out"]) / "lines.txt").write_text("\n".join(lines))


def _train(job: dict, processes: Processes, lines: list[str]) -> TrainingMetrics:
    folders = {name: Path(job[name]) for name in ("s1k_dataset", "out", "scratch")}
    model, compute = ModelConfig(**job["model"]), ComputeConfig(**job["compute"])
    shared = {"model": model, "compute": compute, "progress": Progress(lines.append), **folders}
    if job["kind"] == "lora":
        return train_lora(lora=LoraConfig(**job["config"]), **shared)
    config = FullFinetuneConfig(**job["config"])
    if job["kind"] == "full":
        return train_full(full_finetune=config, **shared)
    return finetune(training=config, processes=processes, sharded=True, **shared)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
