"""Contexts: where each unit fires most, and enough of where it fires less or not at all to judge an explanation.

In: `s1k_dataset`, `activation_shards`, `neuron_shards`, `batchtopk_sae`. Does: one streaming pass that keeps, for each
adapter direction and neuron (both polarities) and each SAE latent, the exact strongest tokens, a random sample of
firing tokens and silent ones; then reads the tokens around them.
Out: `max_activating_contexts` (units.parquet, contexts.parquet).
Paper: section 4 and appendix B (64 contexts per feature).
Knobs worth turning: `k`, `window`, `cap_per_rollout`, `firing_fraction`.
"""
