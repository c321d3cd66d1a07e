"""Safe by default: no pickle, no shell with user text, nothing outside 127.0.0.1, no secret anywhere on the disk."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dagster_project.experiment import ALL_SECTIONS
from resources.models import ModelConfig
from resources.sources import PROJECT
from tests.end_to_end.conftest import Installation, build_installation

SOURCES = [
    path for room in ("assets", "dagster_project", "resources", "sensors") for path in (PROJECT / room).rglob("*.py")
]
TINY = PROJECT / "tests" / "end_to_end" / "tiny.yaml"
MINI = PROJECT / "experiments" / "mini.yaml"
UNSAFE_CALLS = {
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "shutil.unpack_archive",
    "tarfile.open",
    "zipfile.ZipFile",
    "subprocess.getoutput",
    "joblib.load",
    "dill.load",
}
SECRETS = {
    "OPENAI_API_KEY": "sk-canary-4f1d0c77aa-openai",
    "ANTHROPIC_API_KEY": "sk-ant-canary-93be5501cc-anthropic",
    "OPENAI_COMPATIBLE_API_KEY": "canary-6620fd19-compatible",
    "HF_TOKEN": "hf_canaryQx77PpLmN2",
    "LORASCOPE_WEBHOOK": "http://127.0.0.1:9/hooks/canary-webhook-81d2e0",
}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text())
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_module_unpickles_evaluates_unpacks_or_starts_a_shell(path: Path) -> None:
    for name, call in calls(path):
        assert name not in UNSAFE_CALLS, f"{path}:{call.lineno}: {name}"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("shell", "False") == "False", f"{path}:{call.lineno}: a shell"
        assert given.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}: pickle"
        assert given.get("weights_only", "True") == "True", f"{path}:{call.lineno}: pickle"
        assert "0.0.0" not in ast.unparse(call).replace("127.0.0.1", ""), f"{path}:{call.lineno}: listens to the world"


def test_code_that_comes_with_a_model_runs_only_where_the_config_says_so() -> None:
    assert ModelConfig().trust_remote_code is False
    for path in [*PROJECT.glob("experiments/*.yaml")]:
        assert "trust_remote_code" not in path.read_text()


def test_the_security_rules_of_ruff_are_on_and_every_exception_has_its_place() -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    assert re.search(r'^select = .*"S"', text, re.M)
    found = [
        f"{path.relative_to(PROJECT)}: {rule}"
        for path in SOURCES
        for rule in re.findall(r"noqa: (S\d+)", path.read_text())
    ]
    assert sorted(set(found)) == [
        "dagster_project/ui.py: S606",
        "resources/disk.py: S108",
        "resources/launcher/deployment.py: S108",
        "resources/launcher/devices.py: S603",
        "resources/launcher/keeper.py: S606",
        "resources/launcher/local.py: S603",
        "resources/launcher/slurm.py: S603",
        "resources/llm/cache.py: S608",
    ]


def text_knobs() -> list[tuple[str, str]]:
    """Every knob that takes free text."""
    return [
        (section, name)
        for section, config in ALL_SECTIONS.items()
        for name, field in config.model_fields.items()
        if field.annotation in (str, str | None) or "tuple[str" in str(field.annotation)
    ]


EVIL = [
    "; touch {}",
    "$(touch {})",
    "`touch {}`",
    "| touch {}",
    "\n touch {} \n",
    "' ; touch {} ; '",
    '" ; touch {} ; "',
]


def test_shell_commands_in_any_field_never_run_not_even_in_a_run(tmp_path: Path) -> None:
    installation = build_installation(tmp_path, [MINI, TINY])
    pwned = tmp_path / "pwned"
    for number, (section, knob) in enumerate(text_knobs()):
        evil = EVIL[number % len(EVIL)].format(pwned)
        values = [evil] if "tuple" in str(ALL_SECTIONS[section].model_fields[knob].annotation) else evil
        document = {"extends": "tiny", "description": evil, section: {knob: values}}
        (installation.experiments / f"evil{number}.yaml").write_text(yaml.safe_dump(document))
    script = (
        "import os, sys\n"
        "from dagster_project.experiment import Experiments\n"
        "from dagster_project.plan import plan\n"
        "from resources.errors import BadInput\n"
        "from resources.home import find_home\n"
        "from resources.store import Store\n"
        "home = find_home()\n"
        "for name in Experiments(home.experiments).names():\n"
        "    try:\n"
        "        plan(Experiments(home.experiments).load(name), Store(home.store))\n"
        "        print(name)\n"
        "    except BadInput as error:\n"
        "        print('refused', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=installation.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    planned = [line for line in done.stdout.splitlines() if line.startswith("evil")]
    assert planned, done.stdout
    # One run with commands in the fields that the first asset reads, names of folders included.
    folder = tmp_path / "a ; touch pwned $(touch pwned) `touch pwned` '"
    folder.mkdir()
    for path in (PROJECT / "resources/mini_world/data/s1k_mini").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    document = {"extends": "tiny", "description": EVIL[0].format(pwned), "dataset": {"source": str(folder)}}
    (installation.experiments / "run.yaml").write_text(yaml.safe_dump(document))
    ran = installation.run("run", "run", "s1k_dataset", timeout=200)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert not list(tmp_path.rglob("pwned")), "user text reached a shell"
    assert not (PROJECT / "pwned").exists()


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold the secret as bytes."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_no_secret_is_written_anywhere_by_runs_that_succeed_and_fail(tmp_path: Path, tiny: Installation) -> None:
    environment = {**tiny.environment, **SECRETS}
    lines = "extends: tiny\ninterpretations:\n  provider: openai-compatible\n  model: nobody\n"
    (tiny.experiments / "secret-down.yaml").write_text(f"{lines}  base_url: http://127.0.0.1:9/v1\n")
    (tiny.experiments / "secret-model.yaml").write_text(
        f"extends: tiny\nmodel:\n  name: someone/nothing\n  revision: {'a' * 40}\n"
    )
    lorascope = str(Path(sys.executable).with_name("lorascope"))
    said = ""
    for arguments in (
        ("run", "tiny", "s1k_dataset"),
        ("run", "secret-down", "interpretations"),
        ("run", "secret-model", "s1k_dataset"),
        ("plan", "secret-down", "--explain"),
    ):
        done = subprocess.run(
            [lorascope, *arguments],
            env={**environment, "HF_ENDPOINT": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        said += done.stdout + done.stderr
    assert "cannot be reached" in said, "the failures happened"
    for name, secret in SECRETS.items():
        assert secret not in said, name
        assert holding(tiny.home, secret) == [], name
        assert os.environ.get(name) != secret
