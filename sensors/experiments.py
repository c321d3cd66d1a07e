"""Experiment files become partitions, and their sections' versions become observations of `params/<section>`."""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dagster_project.experiment import Experiment, Experiments
from dagster_project.jobs import whole_paper
from dagster_project.materialize import EXPERIMENTS, PARTITIONS
from dagster_project.observe import observations
from resources.errors import BadInput
from resources.home import Home, find_home
from resources.keys import digest

PER_TICK = 10
"""Experiments handled in one tick: 16 observations each when they are new, which SQLite stores one by one."""
NAMED = 20
"""Invalid files that a failed tick names; the rest is counted."""

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
    seen = noted(context.cursor)
    present = set(context.instance.get_dynamic_partitions(PARTITIONS))
    # A file that comes back after gc took its partition is as good as new.
    seen = {name: signature for name, signature in seen.items() if name in present}
    valid, invalid = _changed(home, seen, present, context.instance)
    if not valid:
        if invalid:
            raise BadInput(_refusal(invalid))
        return dg.SkipReason(f"no new or edited file in {home.experiments}")
    new = [one.experiment.name for one in valid if one.experiment.name not in present]
    wanted = [_run_request(one.experiment) for one in valid if one.experiment.automatic]
    said = f"new or edited: {', '.join(one.experiment.name for one in valid)}"
    return dg.SensorResult(
        dynamic_partitions_requests=[EXPERIMENTS.build_add_request(new)] if new else [],
        asset_events=[event for one in valid for event in one.events],
        run_requests=wanted,
        skip_reason=None if wanted else said,  # without one the tick says "Sensor function returned an empty result"
        cursor=_cursor({**seen, **{one.experiment.name: one.signature for one in valid}}),
    )


def noted(cursor: str | None) -> dict[str, Signature]:
    """The files that earlier ticks have seen."""
    text = cursor or "{}"
    return json.loads(text if text.startswith("{") else zlib.decompress(b64decode(text)))


def _cursor(seen: Mapping[str, Signature]) -> str:
    """Small, since Dagster keeps a copy of it with each of the day's 8,640 ticks."""
    return b64encode(zlib.compress(json.dumps(seen).encode())).decode()


@dataclass(frozen=True)
class _Changed:
    """A new or edited experiment, and what is to be said of it."""

    experiment: Experiment
    signature: Signature
    events: tuple[dg.AssetObservation, ...]


def _changed(
    home: Home, seen: Mapping[str, Signature], present: set[str], instance: dg.DagsterInstance
) -> tuple[list[_Changed], list[str]]:
    """Up to `PER_TICK` new or edited experiments, and what is wrong with the invalid files."""
    folder = Experiments(home.experiments)
    valid: list[_Changed] = []
    invalid: list[str] = []
    for name in folder.names():
        if len(valid) == PER_TICK:
            break
        if name in seen and _still(seen[name], folder.folder):
            continue
        try:
            valid.append(_prepared(folder, name, home, instance if name in present else None))
        except BadInput as error:
            invalid.append(str(error) if str(error).startswith(str(folder.folder)) else f"{name}.yaml: {error}")
    return valid, invalid


def _prepared(folder: Experiments, name: str, home: Home, instance: dg.DagsterInstance | None) -> _Changed:
    """Everything that can fail for one file, so that it fails for this file alone; no instance: it knows none of it.

    Raises:
        BadInput: when the file is no experiment, or cannot be planned.
    """
    experiment = folder.load(name)
    signature = _signature(experiment.files)
    return _Changed(experiment, signature, tuple(observations(experiment, home, instance)))


def _refusal(invalid: list[str]) -> str:
    shown = "; ".join(invalid[:NAMED])
    more = f"; and {len(invalid) - NAMED} more" if len(invalid) > NAMED else ""
    return f"{len(invalid)} experiment files cannot be used: {shown}{more}"


def _signature(files: tuple[Path, ...]) -> Signature:
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]


def _still(signature: Signature, folder: Path) -> bool:
    """The files are those of this folder, as they were when this was noted."""
    if Path(signature[0][0]).parent != folder:
        return False
    try:
        return _signature(tuple(Path(path) for path, _, _ in signature)) == [tuple(entry) for entry in signature]
    except OSError:
        return False


def _run_request(experiment: Experiment) -> dg.RunRequest:
    """The same resolved sections never start two runs."""
    version = digest("auto", dict(experiment.versions))
    return dg.RunRequest(run_key=f"{experiment.name}-{version}", partition_key=experiment.name)
