"""The exact cache around every asset: a hit returns at once, a miss runs in a worker and is stored whole."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dagster_project.claim import Claim
from dagster_project.experiment import Experiment
from dagster_project.plan import History, finished_run_folder, run_folder
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job, JobResult
from resources.launcher.deployment import Deployment, load_deployment
from resources.launcher.fit import estimate
from resources.launcher.shape import shape
from resources.lock import held, try_hold
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
    stage: Stage,
    claim: Claim,
    store: Store,
    home: Home,
    say: Callable[[str], None],
    run: Run,
    pause: Callable[[float], None] = time.sleep,
) -> Computed:
    """The artifact of one asset of one experiment, from the store or by running its job.

    While another run computes it, `pause` is called with the seconds between two looks.

    Raises:
        BadInput: when an input is missing or damaged, or outside data has changed since the run began.
    """
    experiment, key = claim.experiment, claim.keys[stage.asset]
    manifest = store.find(stage.asset, key)
    cache: Literal["hit", "computed"] = "hit"
    lock = store.root / ".locks" / f"{stage.asset}-{key}"

    def waiting(who: str) -> None:
        say(f"{stage.asset} is being computed by {who}; waiting for it")

    if manifest is not None:
        _tidy(store.partial(stage.asset, key), run_folder(home.runs, stage.asset, key), lock, home)
    else:
        with held(lock, experiment.name, waiting, pause=pause):
            manifest = store.find(stage.asset, key)
            if manifest is None:
                inputs = {name: claim.keys[name] for name in stage.inputs}
                _check_inputs(inputs, experiment, store, say)
                manifest = _compute(stage, claim, inputs, store, home, run)
                cache = "computed"
    History(store).record(experiment.name, stage.asset, key)
    return Computed(manifest, store.folder(stage.asset, key), cache)


def _tidy(partial: Path, folder: Path, lock: Path, home: Home) -> None:
    """Finish what a run that was killed just after it had stored the artifact could not: put scratch and log away."""
    if not partial.exists() and not folder.exists():
        return
    file = try_hold(lock)
    if file is None:
        return
    with file:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            _shelve(folder, home)


def _check_inputs(inputs: dict[str, str], experiment: Experiment, store: Store, say: Callable[[str], None]) -> None:
    missing = [name for name, key in inputs.items() if not store.folder(name, key).is_dir()]
    if missing:
        raise BadInput(
            f"{', '.join(missing)} of '{experiment.name}' is not in the store: materialise it first, "
            f"or run `lorascope run {experiment.name}`"
        )
    store.check_inputs(inputs, say)


def _compute(stage: Stage, claim: Claim, inputs: dict[str, str], store: Store, home: Home, run: Run) -> Manifest:
    experiment, key = claim.experiment, claim.keys[stage.asset]
    claim.check_sources(stage)
    store.workspace(stage.asset, key)
    job = job_of(stage, experiment, claim.keys, store, load_deployment())
    folder = run_folder(home.runs, stage.asset, key)
    with _reading_what_the_key_says(stage, claim, (store.partial(stage.asset, key), folder)):
        result = run(job, folder)
    manifest = store.finish(_manifest(stage, experiment, key, inputs, result))
    _shelve(folder, home)
    return manifest


@contextmanager
def _reading_what_the_key_says(stage: Stage, claim: Claim, traces: tuple[Path, ...]) -> Iterator[None]:
    """Outside data that changed while the job read it spoils the job: every trace goes, lest a later run resume it."""
    failed: Exception | None = None
    try:
        yield
    except Exception as error:
        failed = error
    try:
        claim.check_sources(stage)
    except BadInput as changed:
        for folder in traces:
            shutil.rmtree(folder, ignore_errors=True)
        raise changed from failed
    if failed is not None:
        raise failed


def job_of(stage: Stage, experiment: Experiment, found: Mapping[str, str], store: Store, deployment: Deployment) -> Job:
    """The job that computes an asset; `found` holds its key and those of its inputs."""
    size = shape(stage.needs, experiment.sections, experiment.compute, deployment)
    places = store.places(stage.asset, found[stage.asset])
    return Job(
        asset=stage.asset,
        key=found[stage.asset],
        call=stage.call,
        sections={name: experiment.values(name) for name in stage.sections},
        inputs={name: store.folder(name, found[name]) for name in stage.inputs},
        out=places.out,
        scratch=places.scratch,
        artifact=stage.artifact,
        compute=experiment.compute,
        gpus=size.gpus,
        processes=size.processes,
        threads=size.threads,
        minutes=stage.needs.minutes,
        saving_s=stage.needs.saving_s,
        memory=estimate(stage.needs, experiment.sections, experiment.compute, size.gpus),
    )


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
