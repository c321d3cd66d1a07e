"""Which models answer: the paper's five arms and any further adapter named in the config."""

from collections.abc import Iterable
from pathlib import Path

from assets.benchmarks.config import BenchmarksConfig
from assets.benchmarks.engine import Arm
from resources.adapters import CONFIG, Adapter, write_ablated
from resources.components import ATTENTION, MLP
from resources.errors import BadInput
from resources.fingerprints import fingerprints
from resources.keys import digest, folder_digest
from resources.manifest import read_manifest
from resources.models import ModelConfig
from resources.sources import local_folder

ABLATED = {"attention_ablated": ATTENTION, "mlp_ablated": MLP}
"""Projections whose B is zero in the arm (paper, Table 2)."""


def build_arms(model: ModelConfig, config: BenchmarksConfig, lora: Path, full: Path, scratch: Path) -> list[Arm]:
    """Every arm of the config, in the paper's order; ablated adapters are written into `scratch`."""
    known = [_arm(name, model, lora, full, scratch) for name in config.arms]
    return known + [_extra(name, folder, model) for name, folder in config.extra_adapters.items()]


def _arm(name: str, model: ModelConfig, lora: Path, full: Path, scratch: Path) -> Arm:
    if name == "full_finetune":
        return Arm(name, full, None, _version(model, "full", folder_version(full)))
    if name == "base":
        return Arm(name, model.name, None, _version(model, "base", ""))
    if name == "lora":
        return Arm(name, model.name, lora, _version(model, "adapter", folder_version(lora)))
    folder = ablate(lora, scratch / name, ABLATED[name])
    return Arm(name, model.name, folder, _version(model, f"ablated {ABLATED[name]}", folder_version(lora)))


def _extra(name: str, source: str, model: ModelConfig) -> Arm:
    folder = local_folder(source)
    if folder is None:
        raise BadInput(f"benchmarks.adapters: {name} names {source}, which is no folder; name one with a PEFT adapter")
    Adapter.open(folder)
    return Arm(name, model.name, folder, _version(model, "adapter", folder_version(folder)))


def ablate(lora: Path, out: Path, projections: Iterable[str]) -> Path:
    """The adapter with B = 0 in these projections of every layer."""
    if not (out / CONFIG).exists():
        adapter = Adapter.open(lora)
        write_ablated(lora, out, [part for part in adapter.components if part.projection in projections])
    return out


def folder_version(folder: Path) -> str:
    """The key in the folder's manifest, which names its content exactly; the content's own hash where there is none."""
    try:
        return read_manifest(folder).key
    except FileNotFoundError:
        return folder_digest(folder)


def _version(model: ModelConfig, kind: str, content: str) -> str:
    base = fingerprints((model.name,)).get(model.name, model.revision)
    return digest("arm", [model.name, base, model.dtype, kind, content])
