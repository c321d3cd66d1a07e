"""The benches that no other test drives still run, at their smallest, and print what bench/RESULTS.md quotes."""

import os
import re
import subprocess
import sys

import pytest

from resources.sources import PROJECT

SMALLEST = {
    "contexts end_to_end 4096": r"of the bare encoder matmul by oneDNN, \d+ tokens/s: .* all of it \d+\.\d+",
    "contexts memory 20000": r"^\d+\.\d+$",
    "coverage --draws 20": r"\| balanced accuracy of 0\.8, 20 firing and 20 quiet \| \d+ \| 100 \|",
    "generate --questions 3": r"assets\.benchmarks\.decode, batch 100 .* same answers 3/3",
    "llm 20 4": r"ask again, all from the cache +\d+\.\d+ requests/s",
    "load objects --count 3": r"\"objects\": 3,\s+\"gc_dry_run_s\": \d+\.\d+",
    "products --turns 1": r"\| 2048 x 2048 x 2048 \| \d+ \| \d+ \| \d+\.\d+ \|",
    "sae_memory --tokens 20000": r"\|---\|\n\| 20,000 \| 5 \| [\d,]+ \| \d+ \|",
    "statistical 2": r"read \d+\.\d+  explain \d+\.\d+  score \d+\.\d+",
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "printed"), SMALLEST.items(), ids=[line.split()[0] for line in SMALLEST])
def test_a_bench_runs_at_its_smallest_and_prints_its_figures(arguments: str, printed: str) -> None:
    module, *rest = arguments.split()
    command = [sys.executable, "-m", f"bench.{module}", *rest]
    ran = subprocess.run(
        command, cwd=PROJECT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(printed, ran.stdout, re.MULTILINE), ran.stdout
