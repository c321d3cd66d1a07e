"""Experiment files become partitions, and their sections' versions become observations of `params/<section>`.

An observation, not a materialization: only observations of external assets mark the right partitions as Unsynced
(Dagster issue 26162).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg

from dagster_project.experiment import Experiment, Experiments, check_name
from dagster_project.jobs import whole_paper
from dagster_project.materialize import EXPERIMENTS, params_key
from dagster_project.plan import plan, total
from resources.errors import BadInput
from resources.home import Home, find_home
from resources.keys import digest
from resources.store import Store

PER_TICK = 40
"""Experiments handled in one tick: 14 observations each, so that a tick over 1000 new files stays in seconds."""

Signature = list[tuple[str, int, int]]


@dg.sensor(
    job=whole_paper,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers experiment files as partitions and observes what their sections say.",
)
def experiments(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """One tick; fails, with the reasons, when nothing is left to do but invalid files.

    Raises:
        BadInput: naming every invalid file.
    """
    home = find_home()
    seen: dict[str, Signature] = json.loads(context.cursor or "{}")
    valid, invalid = _changed(Experiments(home.experiments), seen)
    if not valid:
        if invalid:
            raise BadInput("; ".join(invalid))
        return dg.SkipReason(f"no new or edited file in {home.experiments}")
    cursor = {**seen, **{experiment.name: _signature(experiment.files) for experiment in valid}}
    new = [e.name for e in valid if not context.instance.has_dynamic_partition("experiment", e.name)]
    return dg.SensorResult(
        dynamic_partitions_requests=[EXPERIMENTS.build_add_request(new)] if new else [],
        asset_events=[event for experiment in valid for event in _observations(experiment, home)],
        run_requests=[_run_request(experiment) for experiment in valid if experiment.automatic],
        cursor=json.dumps(cursor),
    )


def _changed(folder: Experiments, seen: Mapping[str, Signature]) -> tuple[list[Experiment], list[str]]:
    """Up to `PER_TICK` new or edited experiments, and what is wrong with the invalid files."""
    valid: list[Experiment] = []
    invalid: list[str] = []
    for name in folder.names():
        if len(valid) == PER_TICK:
            break
        if name in seen and _still(seen[name]):
            continue
        try:
            check_name(name, folder.folder)
            valid.append(folder.load(name))
        except BadInput as error:
            invalid.append(str(error))
    return valid, invalid


def _signature(files: tuple[Path, ...]) -> Signature:
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]


def _still(signature: Signature) -> bool:
    """The files are as they were when this was noted."""
    try:
        return _signature(tuple(Path(path) for path, _, _ in signature)) == [tuple(entry) for entry in signature]
    except OSError:
        return False


def _observations(experiment: Experiment, home: Home) -> Iterator[dg.AssetObservation]:
    planned = plan(experiment, Store(home.store))
    table = dg.MetadataValue.table(
        [dg.TableRecord({"asset": p.asset, "cache": p.cache, "why": p.reason, "key": p.key}) for p in planned]
    )
    shared = {"plan": table, "plan_total": dg.MetadataValue.json(total(planned))}
    for section, version in experiment.versions.items():
        yield dg.AssetObservation(
            asset_key=params_key(section),
            partition=experiment.name,
            metadata={"values": dg.MetadataValue.json(experiment.values(section)), **shared},
            tags={"dagster/data_version": version},
        )


def _run_request(experiment: Experiment) -> dg.RunRequest:
    """The same resolved sections never start two runs."""
    version = digest("auto", dict(experiment.versions))
    return dg.RunRequest(run_key=f"{experiment.name}-{version}", partition_key=experiment.name)
