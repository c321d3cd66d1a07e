"""What Dagster and the cache cost: python -m bench.materialize [--turns 5] [--backfill 20] [--base mini] [--daemon]

1. All hits: the whole graph of a finished experiment in one run of the Dagster process, next to a bare graph of empty
   assets with the same names, edges, partitions and code versions, turn by turn in one process; and next to the same
   with as many empty asset checks, which ours has too.
2. Backfill: so many variants of the SAE's k and seed over the finished experiment, one run after another in a process;
   workers are counted by the run directories they leave, their work is summed from the manifests. With `--daemon` as
   many more as one backfill of a real `dagster dev`, as many runs at a time as LORASCOPE_HOME/dagster/dagster.yaml
   allows: its wall time stands beside the work of the variants that ran alone. Every worker is one process.

Runs in LORASCOPE_HOME (give it a copy); computes the base first when it is not finished. Prints, and writes JSON to
bench/results/materialize.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg  # noqa: TID251 (Dagster itself is what is measured)

from dagster_project.experiment import Experiments
from dagster_project.materialize import EXPERIMENTS, params_key
from dagster_project.plan import keys, plan
from dagster_project.rooms import STAGES
from resources.home import Home, find_home
from resources.sources import PROJECT
from resources.stage import Stage
from resources.store import Store

if TYPE_CHECKING:
    from tests.installation import Installation

RESULTS = PROJECT / "bench" / "results" / "materialize.json"
SHARED = (
    "s1k_dataset",
    "lora_checkpoint",
    "full_finetune_checkpoint",
    "activation_shards",
    "neuron_shards",
    "ablation_kl",
    "benchmark_scores",
)
"""Assets that no SAE variant may compute again."""
LAUNCH_BACKFILL = """mutation ($assets: [AssetKeyInput!]!, $names: [String!]!) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $names}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""
PATIENCE_S = 24 * 3600


def bare_graph(checks: Mapping[str, Sequence[str]]) -> list[dg.AssetsDefinition]:
    """As many assets in the same shape, which do nothing; `checks`: asset -> names of checks, which look at nothing."""

    def empty(stage: Stage) -> dg.AssetsDefinition:
        names = checks.get(stage.asset, ())

        @dg.asset(
            name=stage.asset,
            deps=[*stage.inputs, *(params_key(name) for name in stage.sections)],
            partitions_def=EXPERIMENTS,
            code_version=str(stage.code_version),
            check_specs=[dg.AssetCheckSpec(name, asset=stage.asset) for name in names],
        )
        def nothing() -> dg.MaterializeResult:
            passed = [dg.AssetCheckResult(passed=True, check_name=name) for name in names]
            return dg.MaterializeResult(data_version=dg.DataVersion("1"), check_results=passed)

        return nothing

    return [empty(stage) for stage in STAGES]


def checks_of(defs: dg.Definitions) -> dict[str, list[str]]:
    """Asset -> names of its checks."""
    assets = [asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]
    return {asset.key.to_user_string(): [spec.name for spec in asset.check_specs] for asset in assets}


def bare_job(checks: Mapping[str, Sequence[str]]) -> dg.JobDefinition:
    """All empty assets, with or without empty checks, in one run."""
    jobs = [dg.define_asset_job("bare")]
    found = dg.Definitions(assets=bare_graph(checks), jobs=jobs, executor=dg.in_process_executor)
    return found.resolve_job_def("bare")


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def all_hits(base: str, turns: int) -> dict[str, object]:
    """Seconds of one run, ours and bare, on a fresh SQLite instance; the first turn of each is left out."""
    from dagster_project.definitions import defs

    whole = defs.resolve_job_def("whole_paper")
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": [], "bare_checked": []}
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        instance.add_dynamic_partitions("experiment", [base])

        def run(job: dg.JobDefinition) -> None:
            done = job.execute_in_process(instance=instance, partition_key=base)
            computed = [
                event.asset_key
                for event in done.get_asset_materialization_events()
                if "cache" in event.materialization.metadata and event.materialization.metadata["cache"].value != "hit"
            ]
            assert done.success and not computed, computed

        jobs = {"bare": bare_job({}), "bare_checked": bare_job(checks_of(defs)), "ours": whole}
        for _ in range(turns + 1):
            for name, job in jobs.items():
                seconds[name].append(timed(partial(run, job)))
    middle = {
        unit: {name: statistics.median(found[index] for found in taken[1:]) for name, taken in seconds.items()}
        for index, unit in enumerate(("wall_s", "cpu_s"))
    }
    # turn by turn: the machine's speed may change between turns
    over = {
        f"over_{name}{unit}": statistics.median(
            ours[index] / theirs[index] - 1 for ours, theirs in zip(seconds["ours"][1:], seconds[name][1:], strict=True)
        )
        for name in ("bare", "bare_checked")
        for index, unit in enumerate(("", "_cpu"))
    }
    return {"assets": len(STAGES), **middle, **over}


def write_variants(base: str, seeds: Iterable[int], folder: Path, small: bool) -> list[str]:
    """One experiment per seed in a folder of their own, ten values of k in turn; their names."""
    base_path = find_home().experiments / f"{base}.yaml"
    (folder / base_path.name).write_text(base_path.read_text())
    cheap = "  epochs: 0.1\n  baselines: []\n  effect_rollouts: 0\n" if small else ""
    names: list[str] = []
    for seed in seeds:
        k = 1 + seed % 10 + (seed % 10 >= 3)  # all but the base's own
        names.append(f"{base}-variant-{seed}")
        text = f"extends: {base}\ncompute:\n  processes: 1\nsae:\n  k: {k}\n  seed: {seed}\n{cheap}"
        (folder / f"{names[-1]}.yaml").write_text(text)
    return names


def backfill(names: Sequence[str], run: Callable[[Home, Sequence[str]], float], home: Home) -> dict[str, object]:
    """Run the variants and count what was computed; `run` returns its wall seconds."""
    before = _launched(home)
    wall = run(home, names)
    launched = _launched(home) - before
    work = 0.0
    experiments, store = Experiments(home.experiments), Store(home.store)
    for name in names:
        for asset, key in keys(experiments.load(name)).items():
            manifest = store.peek(asset, key)
            assert manifest is not None, f"{asset} of {name} was not computed"
            work += manifest.seconds if manifest.experiment == name else 0.0
    counts = dict(sorted(Counter(asset for asset, _ in launched).items()))
    return {
        "variants": len(names),
        "wall_s": wall,
        "work_s": work,
        "wall_over_work": wall / work,
        "launches": counts,
        "shared_launches": sum(counts.get(asset, 0) for asset in SHARED),
    }


def one_after_another(home: Home, names: Sequence[str]) -> float:
    """In one process, as `lorascope run` does."""
    environment = {**os.environ, "LORASCOPE_EXPERIMENTS": str(home.experiments)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bench.materialize", "--only-run", *names], env=environment, check=True)
    return time.perf_counter() - began


def through_the_daemon(home: Home, names: Sequence[str]) -> float:
    """As a user does in the UI: one backfill of all assets; the start of the server is not counted."""
    from tests.installation import Installation

    with tempfile.TemporaryDirectory() as folder:
        # At its end `open_dev` kills every process that names its home, and our own shell may name LORASCOPE_HOME.
        link = Path(folder) / "home"
        link.symlink_to(home.root)
        return _one_backfill(Installation(link, home.experiments), names)


def _one_backfill(installation: "Installation", names: Sequence[str]) -> float:
    from tests.end_to_end.dev import PARTITION, open_dev, wait_for

    with open_dev(installation, {}) as dev:
        for name in names:
            dev.ask(PARTITION, name=name)
        began = time.perf_counter()
        assets = [{"path": [stage.asset]} for stage in STAGES]
        done = dev.ask(LAUNCH_BACKFILL, assets=assets, names=list(names))["launchPartitionBackfill"]
        assert done["__typename"] == "LaunchBackfillSuccess", done

        def status() -> str:
            found = dev.ask(BACKFILL_STATUS, id=done["backfillId"])["partitionBackfillOrError"]["status"]
            return "" if found in ("REQUESTED", "CANCELING", "FAILING") else found

        ended = wait_for(status, PATIENCE_S)
        assert ended == "COMPLETED_SUCCESS", ended
        return time.perf_counter() - began


def backfills(base: str, variants: int, *, small: bool, daemon: bool) -> dict[str, object]:
    """The variants alone, and through the daemon if that is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        home = replace(find_home(), experiments=Path(folder))
        # Seeds that this LORASCOPE_HOME has not seen: every variant is a miss, however often the bench runs.
        first = 100 * (time.time_ns() // 10**9 % 10**7)
        alone = backfill(
            write_variants(base, range(first, first + variants), home.experiments, small), one_after_another, home
        )
        found: dict[str, object] = {"small": small, "alone": alone}
        if daemon:
            seeds = range(first + 10 * variants, first + 11 * variants)
            found["daemon"] = backfill(write_variants(base, seeds, home.experiments, small), through_the_daemon, home)
        return found


def _launched(home: Home) -> set[tuple[str, str]]:
    """(asset, key) of every worker that was ever started: each leaves a run directory, finished or not."""
    folders = [*home.runs.glob("*-*"), *(home.runs / ".finished").glob("*-*")]
    return {tuple(folder.name.rsplit("-", 1)) for folder in folders}  # pyright: ignore[reportReturnType]


def run_experiments(names: list[str]) -> None:
    """Every experiment in this process, one after another."""
    from dagster_project.run import run_experiment

    home = find_home()
    for name in names:
        outcome = run_experiment(Experiments(home.experiments).load(name), home)
        assert outcome.success, outcome.failures


def finish(base: str, home: Home) -> None:
    """Compute what the base lacks."""
    missing = [
        line.asset for line in plan(Experiments(home.experiments).load(base), Store(home.store)) if line.cache != "hit"
    ]
    if missing:
        print(f"computing {', '.join(missing)} of {base} first")
        run_experiments([base])


def main() -> None:
    """Both benches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--turns", type=int, default=5, help="of the graphs; 0 leaves them out")
    parser.add_argument("--backfill", type=int, default=20, help="variants; 0 leaves the backfill out")
    parser.add_argument("--small", action="store_true", help="variants with a tenth of an epoch and no comparisons")
    parser.add_argument("--daemon", action="store_true", help="as many variants again as a backfill of `dagster dev`")
    parser.add_argument("--only-run", nargs="+", default=[], help="run these experiments and end")
    chosen = parser.parse_args()
    if chosen.only_run:
        run_experiments(chosen.only_run)
        return
    home = find_home()
    finish(chosen.base, home)
    found: dict[str, object] = {"load": os.getloadavg()[0]}
    if chosen.turns:
        found["all_hits"] = all_hits(chosen.base, chosen.turns)
    if chosen.backfill:
        found["backfill"] = backfills(chosen.base, chosen.backfill, small=chosen.small, daemon=chosen.daemon)
    print(json.dumps(found, indent=1))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
