"""The peers of `bench/sae.py`: their own training steps, and the environment they are installed in.

Each takes the scaled training states (on the device to use), the number of steps and the peak learning rate, and gives
a step and a function that returns weights for raw states. Imported by the peers' Python too, so nothing of the project
is, bench/peers.py apart.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch

from bench.peers import peer_environment

D, F, K = 448, 3584, 16
WARMUP, DECAY = 0.05, 0.2
"""Shares of the steps over which the learning rate rises and falls."""
SAE_LENS, DICTIONARY_LEARNING = "sae-lens==6.54.12", "dictionary-learning==0.1.0"
PEERS_FOLDER = Path(__file__).parents[1] / ".venv-peers"
"""In the project: it reads the project's torch by its path."""
PEERS_PYTHON = PEERS_FOLDER / "bin" / "python"
Step = Callable[[torch.Tensor, float], None]


def run_dictionary_learning(train: torch.Tensor, steps: int, rate: float) -> tuple[Step, Callable[[], dict]]:
    """dictionary_learning's BatchTopKTrainer, inputs of unit mean square norm as its `trainSAE` makes them."""
    # nnsight is needed to run language models only; the package imports it whatever one does
    stand_in = types.ModuleType("nnsight")
    stand_in.LanguageModel = object  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["nnsight"] = stand_in
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer  # pyright: ignore[reportMissingImports]

    norm = float(train.square().sum(dim=1).mean().sqrt())
    trainer = BatchTopKTrainer(
        steps=steps, activation_dim=D, dict_size=F, k=K, layer=0, lm_name="none", lr=rate, seed=0,
        device=str(train.device), warmup_steps=round(WARMUP * steps), decay_start=round((1 - DECAY) * steps),
    )  # fmt: skip
    done = [0]

    def step(x: torch.Tensor, _rate: float) -> None:
        trainer.update(done[0], x / norm)
        done[0] += 1

    def weights() -> dict:
        ae = trainer.ae
        return {
            "W_enc": ae.encoder.weight.T / norm,
            "b_enc": ae.encoder.bias,
            "W_dec": ae.decoder.weight.T * norm,
            "b_dec": ae.b_dec * norm,
            "center": torch.tensor(True),
        }

    return step, weights


def run_sae_lens(train: torch.Tensor, _steps: int, rate: float) -> tuple[Step, Callable[[], dict]]:
    """SAELens's BatchTopKTrainingSAE with its trainer's step (Adam, gradient norm clipped to 1)."""
    from sae_lens.saes.batchtopk_sae import (  # pyright: ignore[reportMissingImports]
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
    )
    from sae_lens.saes.sae import TrainStepInput  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=F, k=K)).to(train.device)
    adam = torch.optim.Adam(sae.parameters(), lr=rate)
    nothing_dead = torch.zeros(F, dtype=torch.bool, device=train.device)

    def step(x: torch.Tensor, now: float) -> None:
        adam.param_groups[0]["lr"] = now
        out = sae.training_forward_pass(TrainStepInput(x, {}, nothing_dead, 0, False))
        adam.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        adam.step()

    def weights() -> dict:
        return {
            "W_enc": sae.W_enc,
            "b_enc": sae.b_enc,
            "W_dec": sae.W_dec,
            "b_dec": sae.b_dec,
            "center": torch.tensor(True),
        }

    return step, weights


def run_authors(train: torch.Tensor, _steps: int, rate: float) -> tuple[Step, Callable[[], dict]]:
    """The paper's recipe in dense autograd: no ReLU, no centring, scores x decoder norm."""
    torch.manual_seed(0)
    W_enc = (torch.randn(F, D) / D**0.5).to(train.device)
    W_dec = W_enc.clone()
    parameters = [W_enc, train.new_zeros(F), W_dec, train.new_zeros(D)]
    adam = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=rate)

    def step(x: torch.Tensor, now: float) -> None:
        adam.param_groups[0]["lr"] = now
        latents = torch.addmm(parameters[1], x, parameters[0].T)
        scores = (latents.detach() * parameters[2].detach().norm(dim=1)).flatten()
        kept = torch.topk(scores, K * len(x), sorted=False).indices
        mask = torch.zeros_like(scores)
        mask[kept] = 1
        rebuilt = torch.addmm(parameters[3], latents * mask.view_as(latents), parameters[2])
        adam.zero_grad()
        torch.nn.functional.mse_loss(rebuilt, x).backward()
        adam.step()

    def weights() -> dict:
        names = ("b_enc", "W_dec", "b_dec")
        return {"W_enc": W_enc.T, **dict(zip(names, parameters[1:], strict=True)), "center": torch.tensor(False)}

    return step, weights


def peer_python() -> Path:
    """This interpreter where it has the peers, else that of an environment of their own, made on first use."""
    if all(importlib.util.find_spec(name) for name in ("sae_lens", "dictionary_learning")):
        return Path(sys.executable)
    own_torch = f"torch=={torch.__version__.split('+')[0]}"
    return peer_environment(PEERS_FOLDER, [SAE_LENS, own_torch], ["--no-deps", DICTIONARY_LEARNING])
