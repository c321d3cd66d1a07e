"""Partitions whose experiment file is gone: they stay until gc takes them; the history of their runs stays for good."""

import dagster as dg

from dagster_project.experiment import Experiments
from dagster_project.materialize import PARTITIONS


def retired(instance: dg.DagsterInstance, experiments: Experiments) -> list[str]:
    """Names that are partitions of the instance and files no more.

    Raises:
        BadInput: when that would be every partition because no experiment is there.
    """
    partitions = instance.get_dynamic_partitions(PARTITIONS)
    return sorted(set(partitions) - set(experiments.names_that_keep(partitions)))


def remove_retired(instance: dg.DagsterInstance, experiments: Experiments) -> list[str]:
    """Take them from the instance; returns their names.

    Raises:
        BadInput: as `retired` does.
    """
    names = retired(instance, experiments)
    for name in names:
        instance.delete_dynamic_partition(PARTITIONS, name)
    return names
