"""The building: experiments, plan, cache and Dagster definitions around the rooms in `assets/`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_project.notebook import OpenExperiment

__all__ = ["open_experiment"]


def open_experiment(name: str) -> "OpenExperiment":
    """Every artifact of an experiment as typed objects; see `dagster_project.notebook`."""
    from dagster_project import notebook

    return notebook.open_experiment(name)
