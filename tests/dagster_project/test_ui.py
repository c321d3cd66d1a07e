"""Dagster's UI works in the instance's folder, and finds what the environment names beside where it was started."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.ui import SOCKET_FOLDER_BYTES, become_ui
from resources.errors import BadInput
from resources.home import find_home
from resources.launcher.deployment import load_deployment
from resources.ports import HOST
from sensors.adapter_landed import watched_folder

RELATIVE = {
    "LORASCOPE_HOME": "home",
    "LORASCOPE_EXPERIMENTS": "experiments",
    "LORASCOPE_COMPUTE": "compute.yaml",
    "LORASCOPE_ADAPTERS": "landed",
}


class Replaced(Exception):
    """This process would be Dagster's now."""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that `lorascope ui` becomes is put here; relative places, and a working folder to begin in."""
    said: list[str] = []

    def replace(_: Path, words: list[str]) -> None:
        said.extend(words)
        raise Replaced

    for name, value in {**RELATIVE, "DAGSTER_HOME": "", "PYTHONWARNINGS": ""}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "compute.yaml").write_text("gpus: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", replace)
    return said


def test_relative_places_are_those_of_the_folder_in_which_the_command_was_given(
    command: list[str], tmp_path: Path
) -> None:
    with pytest.raises(Replaced):
        become_ui(3005)
    assert command[1] == "dev" and command[-4:] == ["-h", HOST, "-p", "3005"]
    assert Path.cwd() == tmp_path / "home" / "dagster" == Path(os.environ["DAGSTER_HOME"])
    home = find_home()
    assert (home.root, home.experiments) == (tmp_path / "home", tmp_path / "experiments")
    assert load_deployment().gpus == 3
    assert watched_folder(home) == tmp_path / "landed"


def test_a_place_that_is_not_named_stays_so(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASCOPE_COMPUTE", "")
    monkeypatch.delenv("LORASCOPE_ADAPTERS")
    with pytest.raises(Replaced):
        become_ui(3005)
    assert os.environ["LORASCOPE_COMPUTE"] == "" and "LORASCOPE_ADAPTERS" not in os.environ


@pytest.mark.parametrize("own", ["", "ignore:mine"])
def test_dagster_does_not_advise_another_command_and_the_users_own_filters_stay(
    own: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", own)
    with pytest.raises(Replaced):
        become_ui(3005)
    # Without its options the command ends at once, after the advice.
    dev = [sys.executable, "-c", "from dagster._cli.dev import dev_command; dev_command.callback()"]
    advice = subprocess.run(dev, capture_output=True, text=True, check=False).stderr
    assert "required positional arguments" in advice
    assert "superseded" not in advice
    mine = [sys.executable, "-c", "import warnings; warnings.warn('mine')"]
    assert ("mine" in subprocess.run(mine, capture_output=True, text=True, check=True).stderr) == (not own)


@pytest.mark.usefixtures("command")
def test_a_ui_that_a_script_starts_in_the_background_can_be_ended_by_kill() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(Replaced):
            become_ui(3005)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["ui", "serve"])
def test_a_port_that_is_taken_or_none_is_one_sentence_and_starts_nothing(name: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        home = {"LORASCOPE_HOME": str(tmp_path / "home")}
        done = CliRunner(env=home).invoke(main, [name, "--port", str(taken)])
    assert done.exit_code == 2
    assert done.output.startswith(
        f"lorascope: port {taken} of 127.0.0.1 cannot be used (Address already in use): choose"
    )
    assert not (tmp_path / "home").exists()
    beyond = CliRunner().invoke(main, [name, "--port", "99999"])
    assert beyond.exit_code == 2
    assert "99999 is not in the range 1<=x<=65535" in beyond.output


@pytest.mark.parametrize("name", ["x" * (SOCKET_FOLDER_BYTES + 1), "#1", "50%41", "what?"])
def test_a_temporary_folder_in_which_dagster_has_no_sockets_is_one_sentence(
    command: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", name)
    with pytest.raises(
        BadInput, match=r"^Dagster's sockets cannot lie in .*: set TMPDIR to a path of at most 95 bytes"
    ):
        become_ui(3005)
    assert not command


def test_the_longest_folder_for_sockets_is_the_systems(public: Path) -> None:
    for length, refused in ((SOCKET_FOLDER_BYTES, False), (SOCKET_FOLDER_BYTES + 1, True)):
        folder = public / ("x" * (length - len(str(public)) - 1))
        folder.mkdir()
        name = tempfile.mkdtemp(dir=folder)
        Path(name).rmdir()
        with (
            socket.socket(socket.AF_UNIX) as one,
            pytest.raises(OSError, match="too long") if refused else nullcontext(),
        ):
            one.bind(name)
