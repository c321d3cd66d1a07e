"""Every section of an experiment, in the rooms' order: one class of knobs each.

Right of every room but the last: `paper` says what an experiment set otherwise than the defaults.
"""

from collections.abc import Mapping

from assets.ablation.config import AblationConfig, LatentAblationConfig, SteeringConfig
from assets.activations.config import ActivationsConfig, NeuronsConfig
from assets.adapter.config import FullFinetuneConfig, LoraConfig
from assets.benchmarks.config import BenchmarksConfig
from assets.categories.config import CategoriesConfig
from assets.contexts.config import ContextsConfig
from assets.dashboard.config import DashboardConfig
from assets.dataset.config import DatasetConfig
from assets.interpretations.config import InterpretationsConfig, ScoresConfig
from assets.sae.config import SaeConfig
from resources.models import ModelConfig
from resources.section import Section

SECTIONS: Mapping[str, type[Section]] = {
    "model": ModelConfig,
    "dataset": DatasetConfig,
    "lora": LoraConfig,
    "full_finetune": FullFinetuneConfig,
    "activations": ActivationsConfig,
    "neurons": NeuronsConfig,
    "sae": SaeConfig,
    "contexts": ContextsConfig,
    "interpretations": InterpretationsConfig,
    "scores": ScoresConfig,
    "categories": CategoriesConfig,
    "ablation": AblationConfig,
    "latent_ablation": LatentAblationConfig,
    "steering": SteeringConfig,
    "benchmarks": BenchmarksConfig,
    "dashboard": DashboardConfig,
}
