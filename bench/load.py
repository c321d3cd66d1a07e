"""A thousand experiments, ten thousand store objects, a row of small runs in one daemon: python -m bench.load PART

PART is experiments, objects or runs; `--count N` makes it smaller. Prints JSON, and keeps the full size's in
bench/results/load-PART.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg  # noqa: TID251 (the load is Dagster's)

from dagster_project.experiment import Experiments
from dagster_project.plan import plan
from dagster_project.run import prepare_instance
from dagster_project.upkeep import collect_garbage, verify_store
from resources.home import Home
from resources.manifest import Manifest
from resources.sources import PROJECT
from resources.store import Store
from tests.end_to_end.dev import open_dev, processes_of, wait_for
from tests.installation import Installation
from tests.sensors.ticks import tick

PORT = 3941
ASSET_PAGE = """query Page($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { __typename ... on AssetNode {
    id description jobNames partitionKeys
    partitionStats { numMaterialized numPartitions }
    assetMaterializations(limit: 5) { runId timestamp partition }
    assetPartitionStatuses { __typename
      ... on DefaultPartitionStatuses { materializedPartitions unmaterializedPartitions } }
  } } }"""


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.monotonic()
    action()
    return round(time.monotonic() - began, 3)


def quiet(_: str) -> None:
    """Say nothing."""


def installation(root: Path, count: int) -> Home:
    """A home with `count` experiments that extend mini."""
    home = Home(root / "home", root / "experiments")
    home.experiments.mkdir(parents=True)
    (home.experiments / "mini.yaml").write_text((PROJECT / "experiments" / "mini.yaml").read_text())
    for number in range(count - 1):
        path = home.experiments / f"e{number:04d}.yaml"
        path.write_text(f"extends: mini\nsae:\n  seed: {number}\n")
    os.environ["LORASCOPE_HOME"], os.environ["LORASCOPE_EXPERIMENTS"] = str(home.root), str(home.experiments)
    os.environ["DAGSTER_HOME"] = str(prepare_instance(home))
    return home


def bench_experiments(root: Path, count: int) -> dict[str, object]:
    """Sensor ticks until everything is registered, then one more; definitions, plan and the asset page."""
    bare = definitions_seconds(installation(root / "bare", 1))
    home = installation(root / "full", count)
    ticks = register_all()
    one = Experiments(home.experiments)
    found = {
        "experiments": count,
        "definitions_s_with_1": bare,
        "definitions_s_with_all": definitions_seconds(home),
        "ticks": len(ticks),
        "slowest_tick_s": max(ticks),
        "idle_tick_s": ticks[-1],
        "plan_one_s": timed(lambda: plan(one.load(one.names()[1]), Store(home.store))),
        "plan_command_s": timed(lambda: subprocess.run([lorascope(), "plan", "mini"], check=True, capture_output=True)),
    }
    with webserver(home):
        found["asset_page_s"] = [ask("batchtopk_sae") for _ in range(5)]
    return found


def definitions_seconds(home: Home) -> float:
    """Loading the definitions in a fresh process."""
    env = {**os.environ, "LORASCOPE_HOME": str(home.root), "LORASCOPE_EXPERIMENTS": str(home.experiments)}
    command = [sys.executable, "-c", "import dagster_project.definitions"]
    return min(timed(lambda: subprocess.run(command, check=True, env=env, cwd=PROJECT)) for _ in range(3))


def register_all() -> list[float]:
    """Seconds of each sensor tick, what the daemon stores afterwards included; the last one finds nothing to do."""
    seconds, cursor = [], None
    with dg.DagsterInstance.get() as instance:
        while True:
            began = time.monotonic()
            result = tick(instance, cursor)
            seconds.append(round(time.monotonic() - began, 3))
            if isinstance(result, dg.SkipReason):
                return seconds
            cursor = result.cursor


@contextmanager
def webserver(home: Home) -> Iterator[None]:
    """A Dagster webserver on this home, ended with the block."""
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-w", str(PROJECT / "workspace.yaml")]
    with (home.root / "web.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(PORT)], stdout=log, stderr=log, cwd=home.dagster
        )
        try:
            wait_until_up()
            yield
        finally:
            process.terminate()
            process.wait(30)


def wait_until_up() -> None:
    """Raises TimeoutError after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            ask("s1k_dataset")
        except OSError:
            time.sleep(0.5)
            continue
        return
    raise TimeoutError("the webserver did not come up")


def ask(asset: str) -> float:
    """Seconds of the asset page's query."""
    body = json.dumps({"query": ASSET_PAGE, "variables": {"key": {"path": [asset]}}}).encode()
    url = f"http://127.0.0.1:{PORT}/graphql"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 (our own address)
        found = json.load(answer)
    assert "errors" not in found, found["errors"]
    assert found["data"]["assetNodeOrError"]["__typename"] == "AssetNode", found
    return round(time.monotonic() - began, 3)


def bench_objects(root: Path, count: int) -> dict[str, object]:
    """gc and verify over two sizes of store; files are small, so that hashing does not count."""
    rows = []
    for size in (count // 4, count):
        home = installation(root / str(size), 20)
        store = Store(home.store)
        fill(store, size)
        row: dict[str, object] = {"objects": size}
        row["gc_dry_run_s"] = timed(
            lambda h=home: collect_garbage(h, Experiments(h.experiments), dry_run=True, say=quiet)
        )
        row["verify_s"] = timed(lambda s=store: verify_store(s, quiet))
        row["gc_s"] = timed(lambda h=home: collect_garbage(h, Experiments(h.experiments), dry_run=False, say=quiet))
        rows.append(row)
    return {"sizes": rows}


def fill(store: Store, count: int) -> None:
    """Small artifacts that no experiment reaches."""
    for number in range(count):
        asset, key = "s1k_dataset", f"{number:020x}"
        workspace = store.workspace(asset, key)
        (workspace.out / "data.bin").write_bytes(number.to_bytes(8, "big") * 64)
        store.finish(empty_manifest(asset, key))


def empty_manifest(asset: str, key: str) -> Manifest:
    """A manifest of nothing in particular."""
    return Manifest(
        asset=asset,
        key=key,
        code_version=1,
        experiment="load",
        sections={},
        section_versions={},
        inputs={},
        files={},
        metrics={},
        columns=[],
        seconds=0.0,
        device="cpu",
        packages={},
        created="2026-01-01T00:00:00",
    )


@dataclass(frozen=True)
class Usage:
    """Of all processes of one installation."""

    memory_mb: int
    files: int
    processes: int


def usage(pids: Sequence[int]) -> Usage:
    """Resident memory and open files of processes, from /proc; one that has just ended counts nothing."""
    memory = files = 0
    for pid in pids:
        with suppress(OSError):
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Usage(memory // 1_000_000, files, len(pids))


def bench_runs(root: Path, count: int) -> dict[str, object]:
    """Small experiments, one after another, launched as the UI does through one `dagster dev` with its daemon."""
    home = installation(root, 1)
    served = Installation(home.root, home.experiments)
    rows = []
    with open_dev(served, {"OMP_NUM_THREADS": "1"}) as dev:
        for number in range(1, count + 1):
            name = f"run{number:04d}"
            # A hit would start no worker: each experiment has a dataset of its own.
            text = f"extends: mini\ndataset:\n  max_rollouts: {number + 1}\n"
            (home.experiments / f"{name}.yaml").write_text(text)
            run = dev.launch(name, "s1k_dataset")
            if run.becomes("SUCCESS", "FAILURE") == "FAILURE":
                raise RuntimeError(f"run {number} of {count} failed")
            worker = run.worker
            wait_for(lambda worker=worker: worker not in processes_of(served))
            rows.append({"run": number, **vars(usage(processes_of(served)))})
            print(json.dumps(rows[-1]), file=sys.stderr)
    return {"runs": count, "first": rows[0], "tenth": rows[min(9, count - 1)], "last": rows[-1], "rows": rows}


def lorascope() -> str:
    """The command of this environment."""
    return str(Path(sys.executable).with_name("lorascope"))


PARTS = {"experiments": (bench_experiments, 1000), "objects": (bench_objects, 10_000), "runs": (bench_runs, 300)}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int)
    chosen = parser.parse_args()
    bench, usual = PARTS[chosen.part]
    with tempfile.TemporaryDirectory(prefix="lorascope-load-") as folder:
        found = {"load_average": os.getloadavg()[0], **bench(Path(folder), chosen.count or usual)}
    text = json.dumps(found, indent=1)
    if chosen.count is None:
        path = PROJECT / "bench" / "results" / f"load-{chosen.part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
