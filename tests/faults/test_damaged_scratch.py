"""Parts of a job's work that are damaged before the next attempt: named, and made again like those that are missing."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.damage import flip
from tests.faults.killing import branch, contents, leftovers, processes_of, start, strike, undisturbed
from tests.installation import Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SEED = 16
PARTS = {
    "activation_shards": "*.parquet",
    "batchtopk_sae": "*.safetensors",
    "max_activating_contexts": "*.npz",
    "ablation_kl": "parts/*.parquet",
}
"""What a kill leaves in the scratch folder, by asset: each kind of file that an attempt goes on from."""


def killed(installation: Installation, asset: str, log: Path) -> list[Path]:
    """The finished parts of a run that was killed when the first one lay there."""
    process = start(installation, [asset], log)
    parts = f"store/.partial/{asset}/*/scratch/{PARTS[asset]}"
    while not any(installation.home.glob(parts)):
        assert process.poll() is None, log.read_text()
        time.sleep(0.001)
    strike("everything", process, installation.home, random.Random(SEED))
    process.wait()
    while processes_of(installation.home):
        time.sleep(0.05)
    return [path for path in installation.home.glob(parts) if path.suffix != ".partial"]


@pytest.mark.parametrize("asset", PARTS)
def test_a_part_with_a_turned_bit_is_named_and_made_again(tiny: Installation, tmp_path: Path, asset: str) -> None:
    installation = branch(tiny, tmp_path, [asset])
    random_ = random.Random(SEED)
    parts = killed(installation, asset, tmp_path / "killed.log")
    for path in parts:
        flip(path, random_)
    code = start(installation, [asset], tmp_path / "next.log").wait()
    said = (tmp_path / "next.log").read_text()
    assert code == 0 and "Traceback" not in said, said[-3000:]
    assert contents(installation.home, [asset]) == undisturbed(tiny, asset)
    assert leftovers(installation.home) == []
    told = "".join(path.read_text() for path in installation.home.glob("runs/.finished/*/messages.jsonl"))
    assert all(f"{path} was damaged since an earlier attempt wrote it" in told for path in parts)
