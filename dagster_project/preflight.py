"""What a run lacks before it starts: knobs that go together, GPUs, disk, an engine, paid models' keys, outside data."""

import os
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from assets.benchmarks.config import BenchmarksConfig
from assets.dataset.config import DatasetConfig
from dagster_project.compute_asset import job_of
from dagster_project.consistency import contradictions, refuse
from dagster_project.experiment import Experiment
from dagster_project.plan import keys, vendors
from resources import hub
from resources.errors import BadInput
from resources.home import Home
from resources.job import Job
from resources.launcher.deployment import Deployment
from resources.launcher.fit import check_fits, fills
from resources.llm.endpoint import missing_key
from resources.memory import GIB
from resources.section import section_of
from resources.sources import PROJECT, local_folder
from resources.stage import Stage
from resources.store import Store


def check(experiment: Experiment, home: Home, deployment: Deployment, stages: Sequence[Stage]) -> None:
    """Make sure that the stages' misses can be computed.

    Raises:
        BadInput: naming each thing that is missing.
    """
    refuse(experiment, lacking(experiment, home, deployment, stages))


def lacking(experiment: Experiment, home: Home, deployment: Deployment, stages: Sequence[Stage]) -> list[str]:
    """One sentence for each thing without which the stages' misses cannot be computed."""
    found, store = keys(experiment), Store(home.store)
    misses = [stage for stage in stages if store.peek(stage.asset, found[stage.asset]) is None]
    jobs = [job_of(stage, experiment, found, store, deployment) for stage in misses]
    return [
        *_interpreter(jobs, deployment),
        *_gpus(jobs, deployment),
        *_memory(jobs, deployment),
        *_disk(experiment, misses, jobs, home, deployment),
        *contradictions(experiment, misses),
        *_engine(experiment, deployment, jobs),
        *_keys(
            experiment,
            [stage for stage, job in zip(misses, jobs, strict=True) if not deployment.for_gpus(job.gpus).prefix],
        ),
        *_sources(experiment, misses, deployment),
        *_questions(experiment, misses, deployment),
    ]


def _interpreter(jobs: Sequence[Job], deployment: Deployment) -> list[str]:
    """What jobs of this machine are started with, in the project's folder; of a node's files nothing is known here."""
    name = str(PROJECT / deployment.python) if os.sep in deployment.python else deployment.python
    if not jobs or deployment.backend != "local" or shutil.which(name):
        return []
    return [f"python: {deployment.python} in compute.yaml is no program of this machine: correct it, or leave it out"]


def _gpus(jobs: Sequence[Job], deployment: Deployment) -> list[str]:
    """All stages that ask for GPUs where nodes have none, in one sentence, with what the largest would hold."""
    asking = [job for job in jobs if job.gpus > deployment.gpus]
    if not asking:
        return []
    modelled = [(job.memory, job.asset) for job in asking if job.memory is not None]
    holds = ""
    if modelled:
        most, asset = max(modelled, key=lambda one: one[0].bytes)
        holds = f"; {asset} holds {most.bytes / GIB:.1f} GiB on each: {most.explain()}"
    return [
        f"{', '.join(job.asset for job in asking)} need GPUs, up to {max(job.gpus for job in asking)}, and a node of "
        f"this deployment has {deployment.gpus}: set compute.profile to cpu, or describe a node that has them in "
        f"compute.yaml{holds}"
    ]


def _memory(jobs: Sequence[Job], deployment: Deployment) -> list[str]:
    said = []
    for job in jobs:
        if job.gpus <= deployment.gpus:
            try:
                check_fits(job, deployment)
            except BadInput as error:
                said.append(str(error))
    return said


def _disk(
    experiment: Experiment, stages: Sequence[Stage], jobs: Sequence[Job], home: Home, deployment: Deployment
) -> list[str]:
    """What a job would fill, beside what an earlier attempt has left of it."""
    said = []
    for stage, job in zip(stages, jobs, strict=True):
        wanted = fills(stage.needs, experiment.sections, job.compute, job.gpus)
        if wanted is None or job.gpus > deployment.gpus:
            continue
        left = Store(home.store).partial(job.asset, job.key)
        there = sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
        room = shutil.disk_usage(next(path for path in (home.store, *home.store.parents) if path.exists())).free
        if wanted.bytes > room + there:
            said.append(
                f"{job.asset} needs {(wanted.bytes - there) / GIB:.0f} GiB under {home.store}, where {room / GIB:.0f} "
                f"are free: {wanted.explain()}; free some, or set LORASCOPE_HOME to a larger disk"
            )
    return said


def _engine(experiment: Experiment, deployment: Deployment, jobs: Sequence[Job]) -> list[str]:
    """vLLM, where jobs run with this interpreter, and GPUs for one engine."""
    config = section_of(experiment.sections, BenchmarksConfig)
    job = next((job for job in jobs if job.asset == "benchmark_scores"), None)
    if job is None or config.backend != "vllm":
        return []
    said: list[str] = []
    if deployment.python == sys.executable and not deployment.prefix and find_spec("vllm") is None:
        said.append(
            "benchmark_scores decodes with vLLM, which is not installed: pip install -e '.[gpu]', or set "
            "benchmarks.backend"
        )
    if 0 < job.gpus < config.tensor_parallel_size:
        said.append(
            f"benchmark_scores gets {job.gpus} GPUs and benchmarks.tensor_parallel_size is "
            f"{config.tensor_parallel_size}: set it to {job.gpus} or less"
        )
    return said


def _keys(experiment: Experiment, stages: Sequence[Stage]) -> list[str]:
    """Vendors' keys, one sentence for each stage that asks somebody whose key is not set in this environment."""
    said: list[str] = []
    for stage in stages:
        missing = dict.fromkeys(variable for vendor in vendors(stage, experiment) if (variable := missing_key(vendor)))
        if missing:
            said.append(f"{stage.asset} asks paid models: set {' and '.join(missing)}, or choose others in its section")
    return said


def _sources(experiment: Experiment, stages: Sequence[Stage], deployment: Deployment) -> list[str]:
    """Hub repositories that the stages read and this machine can neither find in its cache nor ask for, or may not."""
    read = {name for stage in stages for name in stage.sections}
    wanted: list[tuple[str, str, hub.RepoType]] = [
        (source, str(getattr(section, "revision", "")), "dataset" if isinstance(section, DatasetConfig) else "model")
        for name, section in experiment.sections.items()
        if name in read
        for source in section.sources()
        if local_folder(source) is None
    ]
    if any(stage.asset == "benchmark_scores" for stage in stages):
        for source, revision in section_of(experiment.sections, BenchmarksConfig).repositories():
            wanted.append((source, revision, "dataset"))
    if not wanted:
        return []
    missing = [one for one in wanted if not hub.is_cached(*one)]
    if missing and not hub.hub_answers():
        return [hub.unreachable(source) for source, _, _ in missing]
    # Of another machine's login nothing is known here.
    said = [] if deployment.prefix else [hub.refusal(source, kind) for source, _, kind in missing]
    return [one for one in said if one]


def _questions(experiment: Experiment, stages: Sequence[Stage], deployment: Deployment) -> list[str]:
    """Of the user's own benchmarks, whose data are here: scoring would say so too, but only after the trainings."""
    config = section_of(experiment.sections, BenchmarksConfig)
    scored = any(stage.asset == "benchmark_scores" for stage in stages)
    own = config.own_tasks() if scored and not deployment.prefix else ()
    if not own:
        return []
    from assets.benchmarks.harness import load_benchmark

    said: list[str] = []
    for name in own:
        try:
            load_benchmark(name, lambda chat, **_: chat[-1]["content"], limit=config.limit, samples=1, seed=config.seed)
        except BadInput as error:
            said.append(str(error))
    return said
