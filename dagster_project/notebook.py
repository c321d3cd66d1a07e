"""An experiment's artifacts as typed objects, for notebooks: `open_experiment("mini").batchtopk_sae.W_dec_FD`."""

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from dagster_project.experiment import Experiment, Experiments
from dagster_project.plan import keys
from dagster_project.rooms import STAGES, stage
from resources.errors import BadInput
from resources.home import find_home
from resources.manifest import Manifest, read_manifest
from resources.store import Store

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, repr=False)
class OpenExperiment:
    """Artifacts of one experiment; every asset is also an attribute."""

    experiment: Experiment
    store: Store

    def path(self, asset: str) -> Path:
        """The artifact's folder.

        Raises:
            BadInput: when there is no such asset, or it is not computed yet.
        """
        found = keys(self.experiment)
        if asset not in found:
            raise BadInput(f"there is no asset '{asset}'; known are {', '.join(found)}")
        if self.store.whole(asset, found[asset]) is None:
            name = self.experiment.name
            raise BadInput(f"{asset} of '{name}' is not computed yet: run `lorascope run {name}` first")
        return self.store.folder(asset, found[asset])

    def manifest(self, asset: str) -> Manifest:
        """How the artifact was made, and what was measured."""
        return read_manifest(self.path(asset))

    def open(self, asset: str) -> Any:
        """The artifact as its room's type."""
        folder = self.path(asset)
        return resolve_name(stage(asset).artifact).open(folder)

    def table(self, asset: str) -> "pyarrow.Table":
        """The artifact's table."""
        return self.open(asset).table()

    def __getattr__(self, asset: str) -> Any:
        """`experiment.batchtopk_sae` is `experiment.open("batchtopk_sae")`, kept from its first mention on."""
        if asset not in _ASSETS:
            raise AttributeError(f"no asset '{asset}'; known are {', '.join(_ASSETS)}")
        return self.__dict__.setdefault(asset, self.open(asset))  # where the next mention finds it

    def __repr__(self) -> str:
        return f"open_experiment({self.experiment.name!r})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_ASSETS]


_ASSETS = tuple(stage.asset for stage in STAGES)


def open_experiment(name: str) -> OpenExperiment:
    """Every artifact of the experiment called `name`, from the store of this installation.

    Raises:
        BadInput: when the experiment's file is missing or invalid.
    """
    home = find_home()
    return OpenExperiment(Experiments(home.experiments).load(name), Store(home.store))
