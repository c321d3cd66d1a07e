"""The report has no knobs: its stage reads every artifact."""

from resources.stage import Needs, Stage

PAPER_REPORT = Stage(
    asset="paper_report",
    room="paper",
    code_version=17,
    call="assets.paper.report:report",
    artifact="assets.paper.artifact:PaperReport",
    sections=(),
    inputs=(
        "s1k_dataset",
        "lora_checkpoint",
        "full_finetune_checkpoint",
        "activation_shards",
        "neuron_shards",
        "batchtopk_sae",
        "max_activating_contexts",
        "interpretations",
        "interpretation_scores",
        "feature_categories",
        "category_densities",
        "ablation_kl",
        "latent_kl",
        "steering_effects",
        "benchmark_scores",
        "feature_dashboard",
    ),
    needs=Needs(minutes=10),
)
