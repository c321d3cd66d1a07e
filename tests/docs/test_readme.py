"""Every block of the README that a reader may type is executed, or is the very command that a named test executes."""

import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from resources.sources import PROJECT
from tests.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
README = (PROJECT / "README.md").read_text()
ELSEWHERE = {
    "make demo": ("tests/installation.py", 'run("run", "tiny")'),
    "make ui": ("tests/end_to_end/test_ui.py", '"ui", "--port"'),
    "lorascope run paper": ("tests/end_to_end/test_run.py", '"run", "paper"'),
}
"""Commands that need minutes, GPUs or a browser -> the file that runs them, and how it says so."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each line of each shell block, without its comment."""
    return [" ".join(shlex.split(line, comments=True)) for block in blocks("bash") for line in block.splitlines()]


def here(text: str) -> str:
    """The README's `mini` is the tests' tiny experiment; its k is 6, since 8 belongs to a test that counts misses."""
    return re.sub(r"\bmini\b", "tiny", text).replace("k8", "k6").replace("k: 8", "k: 6")


@pytest.fixture(scope="module")
def reader(tiny: Installation) -> Installation:
    """An installation with the files that the README tells one to write."""
    for block in blocks("yaml"):
        name = re.match(r"# experiments/([\w-]+)\.yaml\n", block)
        assert name is not None, "a YAML block of the README begins with the file it goes into"
        if "extends: mini" in block:
            (tiny.experiments / f"{here(name[1])}.yaml").write_text(here(block))
    paper = PROJECT / "experiments" / "paper.yaml"
    (tiny.experiments / "paper.yaml").write_text(paper.read_text())
    return tiny


def test_commands_of_minutes_are_those_that_other_tests_run() -> None:
    assert set(ELSEWHERE) <= set(commands())
    for path, words in ELSEWHERE.values():
        assert words in (PROJECT / path).read_text()
    for target, recipe in (("demo", "lorascope run mini"), ("ui", "lorascope ui")):
        shown = subprocess.run(["make", "-n", target], cwd=PROJECT, capture_output=True, text=True, check=True)
        assert recipe in shown.stdout


@pytest.mark.parametrize("command", [one for one in commands() if one not in ELSEWHERE])
def test_a_command_of_the_readme_does_what_it_says(command: str, reader: Installation) -> None:
    words = here(command).split()
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.search(r"\.\[(\w+)\]", command)
        assert named is not None
        assert extras[named[1]]
    elif words == ["lorascope", "serve"]:
        _serve(reader)
    else:
        assert words[0] == "lorascope"
        done = reader.run(*words[1:])
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        assert "Traceback" not in done.stdout + done.stderr
        _says(command, done.stdout)


def _says(command: str, text: str) -> None:
    """What the README promises beside the command."""
    if command == "lorascope plan mini-k8":
        assert "sae.k 4 → 6" in text
        assert '"sae.k 4 → 8"' in README
    elif command == "lorascope plan paper --explain":
        assert "GPU memory per rank" in text and "walltime" in text
    elif command.startswith("lorascope run"):
        assert "Table 1" in text
        found = re.search(r"17 assets, (\d+) from the store", text)
        assert found and int(found[1]) >= 6
    elif command.startswith("lorascope compare"):
        assert text.index("sae.k") < text.index("SAE, L0")


def _serve(installation: Installation) -> None:
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("lorascope")), "serve", "--port", "3037"],
        env=installation.environment,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                page = urllib.request.urlopen("http://127.0.0.1:3037/", timeout=10).read().decode()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        assert "tiny" in page
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_notebook_block_gives_what_its_comments_say(block: str, reader: Installation) -> None:
    code = here(block) + "print(type(tiny.batchtopk_sae.W_dec_FD), type(tiny.benchmark_scores.table()))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], env=reader.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Tensor" in done.stdout
    assert "pyarrow" in done.stdout


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert [link for link in links if "//" not in link and not (PROJECT / link).exists()] == []
