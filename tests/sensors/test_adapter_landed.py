"""An adapter that lands becomes an experiment on its own base model, once, and only when it is whole."""

import json
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.experiment import Experiments
from resources.errors import BadInput
from resources.home import Home
from sensors.adapter_landed import adapter_landed, land

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


def test_a_model_that_an_experiment_put_in_place_of_its_parents_is_found(home: Home) -> None:
    (home.experiments / "mine.yaml").write_text(f"extends: mini\nmodel:\n  name: models/mine\n  revision: {COMMIT}\n")
    (home.experiments / "a-variant.yaml").write_text("extends: mine\n")
    put_adapter(home.root / "adapters" / "a", "models/mine")
    assert land(home, home.root / "adapters")[1] == []
    assert Experiments(home.experiments).load("adapter-a").parent == "mine"


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


def test_experiments_are_read_once_a_tick_however_many_adapters_wait_for_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        put_adapter(home.root / "adapters" / f"{number}", "someone/else")
    read: list[str] = []
    load = Experiments.load
    monkeypatch.setattr(Experiments, "load", lambda self, name: read.append(name) or load(self, name))
    assert len(land(home, home.root / "adapters")[1]) == 20
    assert sorted(read) == ["mini", "mini-child"]


@pytest.mark.parametrize("text", [b'{"base_model_name_or_p', b"[]", b"\xff\xfe"], ids=["cut", "a list", "no text"])
def test_a_half_copied_config_is_named_and_lets_the_others_land(home: Home, text: bytes) -> None:
    for name in ("a", "b"):
        put_adapter(home.root / "adapters" / name, "models/tiny")
    config = home.root / "adapters" / "a" / "adapter_config.json"
    whole = config.read_bytes()
    config.write_bytes(text)
    written, unfit = land(home, home.root / "adapters")
    assert [path.name for path in written] == ["adapter-b.yaml"]
    assert unfit[0].startswith(f"{config} is no adapter's config") and unfit[0].endswith("copy it anew")
    config.write_bytes(whole)
    assert [path.name for path in land(home, home.root / "adapters")[0]] == ["adapter-a.yaml"]


@pytest.mark.parametrize("name", ["step: 100", "# first", "'quoted\" {a}", "größer 🙂", "- 数学", "yes: &a !b"])
def test_any_folder_name_gives_a_valid_experiment(home: Home, name: str) -> None:
    put_adapter(home.root / "adapters" / name, "models/tiny")
    (written,), unfit = land(home, home.root / "adapters")
    experiment = Experiments(home.experiments).load(written.stem)
    assert unfit == []
    assert experiment.values("lora")["source"] == str(home.root / "adapters" / name)
    assert experiment.description == f"Uses the adapter that landed in {name}."


def test_a_folder_whose_name_no_experiment_can_hold_is_named_and_leaves_no_file(home: Home) -> None:
    put_adapter(home.root / "adapters" / "a\x07", "models/tiny")
    put_adapter(home.root / "adapters" / "b", "models/tiny")
    written, unfit = land(home, home.root / "adapters")
    assert [path.name for path in written] == ["adapter-b.yaml"]
    assert "holds the control character U+0007" in unfit[0] and "a\\x07" in unfit[0] and "\x07" not in unfit[0]
    assert {path.name for path in home.experiments.iterdir()} == {"mini.yaml", "mini-child.yaml", "adapter-b.yaml"}


def test_of_two_folders_with_the_same_name_for_an_experiment_one_lands_and_the_other_is_named(home: Home) -> None:
    watched = home.root / "adapters"
    put_adapter(watched / "my-adapter", "models/tiny")
    assert len(land(home, watched)[0]) == 1
    put_adapter(watched / "my adapter", "models/tiny")
    put_adapter(watched / "my+adapter", "models/tiny", whole=False)
    said = f"{watched}/my adapter and {watched}/my-adapter would both be adapter-my-adapter: rename one of them"
    assert land(home, watched) == ([], [said])


def test_the_name_of_an_experiment_ends_after_80_characters_of_the_folders(home: Home) -> None:
    put_adapter(home.root / "adapters" / ("x" * 255), "models/tiny")
    assert [path.name for path in land(home, home.root / "adapters")[0]] == [f"adapter-{'x' * 80}.yaml"]


@pytest.mark.parametrize("variable", [None, "LORASCOPE_ADAPTERS"])
def test_a_tick_says_how_many_it_wrote_and_fails_with_every_adapter_that_fits_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    monkeypatch.setenv("LORASCOPE_HOME", str(home.root))
    monkeypatch.setenv("LORASCOPE_EXPERIMENTS", str(home.experiments))
    monkeypatch.delenv("LORASCOPE_ADAPTERS", raising=False)
    watched = tmp_path / "landed" if variable else home.root / "adapters"
    if variable:
        monkeypatch.setenv(variable, str(watched))
    put_adapter(watched / "a", "models/tiny")
    for says in ("1 experiments written", "no new adapter"):
        tick = adapter_landed(dg.build_sensor_context())
        assert isinstance(tick, dg.SkipReason)
        assert tick.skip_message == says
    for name, base in {"b": "models/tiny", "c": "some/one", "d": "some/other"}.items():
        put_adapter(watched / name, base)
    with pytest.raises(BadInput, match=r"/c is for some/one.*; .*/d is for some/other"):
        adapter_landed(dg.build_sensor_context())
    assert (home.experiments / "adapter-b.yaml").exists()
