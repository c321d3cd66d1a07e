"""The exact cache around every asset: a hit returns at once, a miss runs in a worker and is stored whole."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dagster_project.experiment import Experiment
from dagster_project.plan import History, finished_run_folder, keys, run_folder
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job, JobResult
from resources.lock import held
from resources.manifest import Manifest
from resources.stage import Stage
from resources.store import Store

Run = Callable[[Job, Path], JobResult]
"""Runs a job in a run directory and returns its result, or raises."""


@dataclass(frozen=True)
class Computed:
    """An artifact, and whether it was there already."""

    manifest: Manifest
    folder: Path
    cache: Literal["hit", "computed"]


def obtain(
    stage: Stage, experiment: Experiment, store: Store, home: Home, say: Callable[[str], None], run: Run
) -> Computed:
    """The artifact of one asset of one experiment, from the store or by running its job.

    Raises:
        BadInput: when an input is missing or damaged.
    """
    found = keys(experiment)
    key = found[stage.asset]
    manifest, cache = store.find(stage.asset, key), "hit"
    if manifest is None:
        with held(store.root / ".locks" / f"{stage.asset}-{key}", experiment.name, _waiting(say, stage)):
            manifest = store.find(stage.asset, key)
            if manifest is None:
                inputs = {name: found[name] for name in stage.inputs}
                _check_inputs(inputs, experiment, store)
                manifest = _compute(stage, experiment, key, inputs, store, home, run)
                cache = "computed"
    History(store).record(experiment.name, stage.asset, key)
    return Computed(manifest, store.folder(stage.asset, key), "hit" if cache == "hit" else "computed")


def _waiting(say: Callable[[str], None], stage: Stage) -> Callable[[str], None]:
    return lambda holder: say(f"{stage.asset} is being computed by {holder}; waiting for it")


def _check_inputs(inputs: dict[str, str], experiment: Experiment, store: Store) -> None:
    missing = [name for name, key in inputs.items() if not store.folder(name, key).is_dir()]
    if missing:
        raise BadInput(
            f"{', '.join(missing)} of '{experiment.name}' is not in the store: materialise it first, "
            f"or run `lorascope run {experiment.name}`"
        )
    store.check_inputs(inputs)


def _compute(
    stage: Stage, experiment: Experiment, key: str, inputs: dict[str, str], store: Store, home: Home, run: Run
) -> Manifest:
    workspace = store.workspace(stage.asset, key)
    processes = experiment.compute.processes if stage.needs.parallel and experiment.compute.profile == "cpu" else 1
    job = Job(
        asset=stage.asset,
        key=key,
        call=stage.call,
        sections={name: experiment.values(name) for name in stage.sections},
        inputs={name: store.folder(name, input_key) for name, input_key in inputs.items()},
        out=workspace.out,
        scratch=workspace.scratch,
        artifact=stage.artifact,
        compute=experiment.compute,
        gpus=0 if experiment.compute.profile == "cpu" else stage.needs.gpus,
        processes=processes,
        minutes=stage.needs.minutes,
    )
    folder = run_folder(home.runs, stage.asset, key)
    result = run(job, folder)
    manifest = store.finish(_manifest(stage, experiment, key, inputs, result))
    _shelve(folder, home)
    return manifest


def _shelve(folder: Path, home: Home) -> None:
    """Put a finished run's log aside, so that computing the key again never finds an old result."""
    done = finished_run_folder(home.runs, folder.name)
    shutil.rmtree(done, ignore_errors=True)
    done.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(done)


def _manifest(stage: Stage, experiment: Experiment, key: str, inputs: dict[str, str], result: JobResult) -> Manifest:
    return Manifest(
        asset=stage.asset,
        key=key,
        code_version=stage.code_version,
        experiment=experiment.name,
        sections={name: experiment.values(name) for name in stage.sections},
        section_versions={name: experiment.versions[name] for name in stage.sections},
        inputs=inputs,
        files={},
        metrics=result.metrics,
        columns=result.columns,
        seconds=result.seconds,
        device=result.device,
        packages=result.packages,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        cost_usd=result.cost_usd,
    )
