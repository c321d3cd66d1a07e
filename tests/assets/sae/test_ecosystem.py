"""The exported files in the packages they are for, in the environment that `bench/sae.py` makes for them (300 MB).

`LORASCOPE_REQUIRE_PEERS` makes it here; without it, and where no bench has made it, these tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.sae.artifact import Sae
from assets.sae.config import SaeConfig
from assets.sae.export import DICTIONARY_LEARNING_FILE
from bench.sae_peers import PEERS_PYTHON, peer_python
from tests.assets.sae.conftest import SMALL, run_train

REQUIRED = "LORASCOPE_REQUIRE_PEERS"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PEERS_PYTHON.is_file() and REQUIRED not in os.environ,
        reason=f"SAELens and dictionary_learning are not installed: set {REQUIRED}=1, and this test installs them",
    ),
]

SAELENS = """
import sys, torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
sae = SAE.load_from_disk(sys.argv[1])
state = load_file(sys.argv[2])["state"]
with torch.no_grad():
    latents = sae.encode(state)
    save_file({"latents": latents, "rebuilt": sae.decode(latents)}, sys.argv[3])
"""
DICTIONARY_LEARNING = """
import json, sys, types, torch
stub = types.ModuleType("nnsight"); stub.LanguageModel = object; sys.modules["nnsight"] = stub
from safetensors.torch import load_file, save_file
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
d_in, d_sae, k = json.loads(sys.argv[4])
sae = BatchTopKSAE(d_in, d_sae, k)
sae.load_state_dict(load_file(sys.argv[1] + "/FILE"))
state = load_file(sys.argv[2])["state"]
with torch.no_grad():
    latents = sae.encode(state)
    save_file({"latents": latents, "rebuilt": sae.decode(latents)}, sys.argv[3])
""".replace("FILE", DICTIONARY_LEARNING_FILE)


@pytest.fixture(scope="module", params=["default", "authors"])
def exported(request: pytest.FixtureRequest, sparse_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    preset = SaeConfig(preset=request.param)
    written = {"decoder": preset.decoder, "activation": preset.activation, "center": preset.center}
    run_train(SMALL.model_copy(update={"epochs": 2, "input_scale": "column", **written}), sparse_shards, folder)
    return folder / "out"


def in_peer(script: str, sae: Sae, folder: Path, state: torch.Tensor) -> dict[str, torch.Tensor]:
    save_file({"state": state}, folder / "state.safetensors")
    arguments = [sae.path, folder / "state.safetensors", folder / "latents.safetensors"]
    shape = json.dumps([sae.d_in, sae.d_sae, sae.k])
    subprocess.run([peer_python(), "-W", "ignore", "-c", script, *map(str, arguments), shape], check=True, cwd=folder)
    return load_file(folder / "latents.safetensors")


def states() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).standard_normal((500, 14)).astype(np.float32)) * 2


def test_saelens_encodes_and_decodes_to_the_same_numbers(exported: Path, tmp_path: Path) -> None:
    sae, state = Sae.open(exported), states()
    theirs = in_peer(SAELENS, sae, tmp_path, state)
    latents = sae.encode(state)
    ours = torch.zeros_like(theirs["latents"])
    ours[latents.row_N, latents.latent_N] = latents.value_N
    assert len(latents.row_N) > 500
    torch.testing.assert_close(ours, theirs["latents"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(latents, 500), theirs["rebuilt"], rtol=1e-5, atol=1e-4)


def test_dictionary_learning_encodes_to_the_same_selection_and_rebuilds_the_same(
    exported: Path, tmp_path: Path
) -> None:
    sae, state = Sae.open(exported), states()
    theirs = in_peer(DICTIONARY_LEARNING, sae, tmp_path, state)
    latents = sae.encode(state)
    ours = torch.zeros_like(theirs["latents"])
    ours[latents.row_N, latents.latent_N] = latents.value_N * sae.threshold / sae.threshold_F[latents.latent_N]
    torch.testing.assert_close(ours, theirs["latents"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(latents, 500), theirs["rebuilt"], rtol=1e-5, atol=1e-4)
