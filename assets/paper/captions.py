"""What stands under each figure: its name in the paper, what is drawn, what the paper found, the claims it bears on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from resources.units import SPOKEN

_KINDS: Mapping[str, str] = {**SPOKEN}
_ADAPTER_LOSS = "Cross-entropy per token of the assistant's turns, by optimiser step"
_GRADIENT = "Norm of the gradient before clipping, by optimiser step"


@dataclass(frozen=True)
class Figure:
    """A chart of an artifact."""

    asset: str
    name: str
    specification: str
    """Vega-Lite JSON."""


@dataclass(frozen=True)
class Caption:
    """The text of the figures of one asset whose name begins with `begins`."""

    asset: str
    begins: str
    label: str
    """`Figure 1`, or empty where the paper has no such figure."""
    text: str
    """`{}` stands for the rest of the chart's name."""
    paper: str = ""
    """What the paper shows there, where it is no claim of its own."""
    claims: tuple[str, ...] = ()
    layout: Literal["half", "broad"] = "half"
    """Half the page's width, or all of it with the caption beside the chart."""


@dataclass(frozen=True)
class Captioned:
    """A figure as the page shows it."""

    figure: Figure
    caption: Caption

    @property
    def text(self) -> str:
        """The caption with the chart's own words filled in."""
        rest = self.figure.name.removeprefix(self.caption.begins).strip("_").replace("_", " ")
        return self.caption.text.format(_KINDS.get(rest, rest))


SECTIONS: tuple[tuple[str, str, tuple[Caption, ...]], ...] = (
    (
        "scores",
        "Scores of every arm",
        (
            Caption(
                "benchmark_scores",
                "scores",
                "Tables 1 and 2",
                "Share of problems solved by each arm, with 95 % intervals.",
                claims=("mlp_over_attention_score", "recovery_least"),
                layout="broad",
            ),
        ),
    ),
    (
        "figure-1",
        "Figure 1: directions are as interpretable as neurons",
        (
            Caption(
                "category_densities",
                "figure_1",
                "Figure 1",
                "Share of each class among the labelled units of a kind, with Wilson's 95 % intervals.",
                claims=(
                    "directions_monosemantic",
                    "directions_over_neurons",
                    "latents_monosemantic",
                    "latents_broad",
                    "latents_over_directions",
                ),
                layout="broad",
            ),
        ),
    ),
    (
        "figure-2",
        "Figure 2: what activates",
        (
            Caption(
                "category_densities",
                "figure_2",
                "Figure 2",
                "Share of the summed activation of all categorised {} by category (inside) and subcategory.",
                paper="mathematical operators, procedural and discourse markers, among others",
            ),
        ),
    ),
    (
        "figure-3",
        "Figure 3: what the components do",
        (
            Caption(
                "ablation_kl",
                "figure_3a",
                "Figure 3a",
                "KL divergence from the full adapter with one layer's adapter ablated; rules: one standard error.",
                paper="layers 44, 45, 46 and 62 of 64 matter most",
                claims=("mlp_over_attention_kl",),
                layout="broad",
            ),
            Caption(
                "ablation_kl",
                "figure_3b",
                "Figure 3b",
                "KL divergence with a single component ablated, layer by projection.",
                claims=("gate_strongest",),
                layout="broad",
            ),
            Caption("ablation_kl", "projection_means", "", "Single components' KL divergence, mean over layers."),
            Caption(
                "ablation_kl",
                "interactions",
                "",
                "KL divergence of a group minus the sum over its components ablated alone: above 0 the group is more "
                "than they are, since they push the same way or replace each other.",
            ),
            Caption(
                "ablation_kl",
                "cumulative",
                "",
                "KL divergence as layers (or components) are ablated one after the other, the one that adds most next.",
            ),
        ),
    ),
    (
        "steering",
        "Steering",
        (
            Caption(
                "steering_effects",
                "dose",
                "",
                "What a dose does, with 95 % intervals; dashed, where added: a random direction of the same norm.",
                paper="inconclusive; no effect below 50 times normal activations, then backtracking",
                layout="broad",
            ),
        ),
    ),
    (
        "sae-figures",
        "The sparse autoencoder",
        (
            Caption("batchtopk_sae", "loss", "", "Variance left unexplained while training, by step."),
            Caption("batchtopk_sae", "l0", "", "Latents that fire per held-out token."),
            Caption(
                "batchtopk_sae",
                "density",
                "",
                "How often each latent fires on held-out rollouts; the first bar holds those that never do.",
                claims=("sae_live",),
            ),
            Caption("batchtopk_sae", "explained_variance", "", "Variance of each component that the SAE explains."),
        ),
    ),
    (
        "training",
        "Training",
        tuple(
            Caption(asset, chart, "", f"{name}. {text}.")
            for asset, name in (("lora_checkpoint", "Rank-1 LoRA"), ("full_finetune_checkpoint", "Full finetune"))
            for chart, text in (("loss", _ADAPTER_LOSS), ("grad_norm", _GRADIENT))
        ),
    ),
)
"""Anchor, title, captions; in the order of the page."""


def arranged(figures: Sequence[Figure]) -> Iterator[tuple[str, str, list[Captioned]]]:
    """Anchor, title and figures of each section that has any; charts that no caption knows come last."""
    left = list(figures)
    for anchor, title, captions in SECTIONS:
        found = [Captioned(figure, caption) for caption in captions for figure in left if _fits(figure, caption)]
        left = [figure for figure in left if all(figure != one.figure for one in found)]
        if found:
            yield anchor, title, found
    if left:
        yield "more-figures", "More figures", [Captioned(one, Caption(one.asset, "", "", "{}")) for one in left]


def _fits(figure: Figure, caption: Caption) -> bool:
    return figure.asset == caption.asset and figure.name.startswith(caption.begins)
