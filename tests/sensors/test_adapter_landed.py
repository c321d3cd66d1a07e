"""An adapter that lands becomes an experiment on its own base model, once, and only when it is whole."""

import json
from pathlib import Path

import pytest

from dagster_project.experiment import Experiments
from resources.home import Home
from sensors.adapter_landed import land

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home", tmp_path / "experiments")
    home.experiments.mkdir()
    (home.experiments / "mini.yaml").write_text(f"model:\n  name: models/tiny\n  revision: {COMMIT}\n")
    (home.experiments / "mini-child.yaml").write_text("extends: mini\n")
    return home


def put_adapter(folder: Path, base: str, *, whole: bool = True) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    if whole:
        (folder / "adapter_model.safetensors").write_bytes(b"x")


def test_a_whole_adapter_becomes_a_valid_experiment_that_extends_its_base_models_root(home: Home) -> None:
    put_adapter(home.root / "adapters" / "my adapter!", "/elsewhere/models/tiny")
    written, unfit = land(home, home.root / "adapters")
    assert ([path.name for path in written], unfit) == (["adapter-my-adapter-.yaml"], [])
    experiment = Experiments(home.experiments).load("adapter-my-adapter-")
    assert experiment.parent == "mini"
    assert experiment.values("lora")["source"] == str(home.root / "adapters" / "my adapter!")


def test_landing_twice_writes_once(home: Home) -> None:
    put_adapter(home.root / "adapters" / "a", "models/tiny")
    assert len(land(home, home.root / "adapters")[0]) == 1
    assert land(home, home.root / "adapters") == ([], [])


def test_half_an_adapter_waits(home: Home) -> None:
    put_adapter(home.root / "adapters" / "a", "models/tiny", whole=False)
    assert land(home, home.root / "adapters") == ([], [])


def test_an_adapter_of_an_unknown_model_is_named(home: Home) -> None:
    put_adapter(home.root / "adapters" / "a", "someone/else")
    written, unfit = land(home, home.root / "adapters")
    assert written == []
    assert unfit[0].endswith("is for someone/else, and no experiment has that base model: add one first")
