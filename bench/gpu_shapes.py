"""The Qwen2.5 shapes of the GPU benches, and a toy one that rehearses on a CPU."""

from dataclasses import asdict

from transformers import Qwen2Config

from resources.memory import KNOWN, Architecture

SHAPES = {
    "toy": Architecture(64, 160, 2, 4, 2, 512),
    "0.5b": KNOWN["Qwen/Qwen2.5-0.5B-Instruct"],
    "7b": KNOWN["Qwen/Qwen2.5-7B-Instruct"],
    "32b": KNOWN["Qwen/Qwen2.5-32B-Instruct"],
}


def qwen2(shape: str) -> Qwen2Config:
    """The shape as transformers' configuration."""
    return Qwen2Config(**asdict(SHAPES[shape]))
