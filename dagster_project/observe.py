"""What an experiment's sections say, as observations of `params/<section>`.

An observation, not a materialization: only observations of external assets mark the right partitions as Unsynced
(Dagster issue 26162). An asset that was made before the first one knows no version, and is never Unsynced.
"""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from dagster_project.experiment import Experiment
from dagster_project.materialize import observed_versions, params_key
from dagster_project.metadata import table_metadata
from dagster_project.plan import plan, total
from resources.home import Home
from resources.store import Store


def observations(
    experiment: Experiment, home: Home, instance: dg.DagsterInstance | None
) -> Iterator[dg.AssetObservation]:
    """One for each section whose version the instance does not know yet: an edit of a parent touches many files.

    `instance` is None where it knows nothing of the experiment.
    """
    new = [
        section
        for section, version in experiment.versions.items()
        if not _known(experiment, section, version, instance)
    ]
    if not new:
        return
    planned = plan(experiment, Store(home.store))
    table = table_metadata({"asset": p.asset, "cache": p.cache, "why": p.reason, "key": p.key} for p in planned)
    shared = {"plan": table, "plan_total": dg.MetadataValue.json(total(planned))}
    for section in new:
        yield dg.AssetObservation(
            asset_key=params_key(section),
            partition=experiment.name,
            metadata={"values": dg.MetadataValue.json(experiment.values(section)), **shared},
            tags={DATA_VERSION_TAG: experiment.versions[section]},
        )


def _known(experiment: Experiment, section: str, version: str, instance: dg.DagsterInstance | None) -> bool:
    before = observed_versions(instance, section, experiment.name, 1) if instance else ()
    return any(seen == version for _, seen in before)
