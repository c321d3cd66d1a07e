"""Experiments that differ in a few knobs, run through the cache with workers that compute nothing."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from pydantic import JsonValue

from assets.paper.claims import CLAIMS
from assets.paper.report import claim_rows
from dagster_project.claim import claimed
from dagster_project.compute_asset import obtain
from dagster_project.experiment import Experiment, Experiments
from dagster_project.rooms import STAGES
from resources.home import Home
from resources.job import Job, JobResult
from resources.sources import PROJECT
from resources.store import Store

EDITS = {
    "dataset": ("block_size", (64, 128)),
    "lora": ("learning_rate", ("1e-3", "2e-3")),
    "full_finetune": ("epochs", (1, 2)),
    "neurons": ("per_layer", (6, 60)),
    "sae": ("k", (4, 8)),
    "contexts": ("k", (16, 32)),
    "ablation": ("num_rollouts", (2, 4)),
    "benchmarks": ("seed", (0, 1)),
}
CHOICES = st.fixed_dictionaries({name: st.integers(0, 1) for name in EDITS})


METRICS: dict[str, dict[str, JsonValue]] = {
    "benchmark_scores": {"consistency": [], "num_ungraded": 0},
    "paper_report": {"claims": [*claim_rows({claim.id: None for claim in CLAIMS}, comparable=True)]},
}
"""What the assets' checks look at."""


def right_of(asset: str) -> set[str]:
    """The asset and everything that reads it, directly or not."""
    found = {asset}
    for stage in STAGES:
        if found & set(stage.inputs):
            found.add(stage.asset)
    return found


def load(folder: Path, choice: dict[str, int], name: str = "e") -> Experiment:
    lines = [f"{section}:\n  {EDITS[section][0]}: {EDITS[section][1][which]}\n" for section, which in choice.items()]
    (folder / "mini.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    (folder / f"{name}.yaml").write_text("extends: mini\n" + "".join(lines))
    return Experiments(folder).load(name)


def fake_run(launched: list[str]) -> Callable[[Job, Path], JobResult]:
    """A worker that writes one small file; what it would compute does not matter to the cache."""

    def run(job: Job, folder: Path) -> JobResult:
        launched.append(job.asset)
        folder.mkdir(parents=True)
        (job.out / "data").write_text(job.key)
        return JobResult(
            metrics=METRICS.get(job.asset, {}),
            columns=[],
            seconds=1.0,
            device="cpu",
            packages={},
            cost_usd=0.25,
        )

    return run


def run_all(experiment: Experiment, home: Home) -> dict[str, str]:
    launched: list[str] = []
    store = Store(home.store)
    with claimed(home, experiment.name, "run", launched.append) as claim:
        caches = {
            stage.asset: obtain(stage, claim, store, home, launched.append, fake_run(launched)).cache
            for stage in STAGES
        }
    assert launched == [asset for asset, cache in caches.items() if cache == "computed"]
    return caches
