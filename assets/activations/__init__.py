"""Activations: the adapter's scalars and the baseline's neurons at every token.

In: `s1k_dataset`, `lora_checkpoint`. Does: runs the adapted model over every rollout and keeps A·x of each component
(before scale and B); runs the unadapted base and keeps the first neurons of each MLP.
Out: `activation_shards`, `neuron_shards`: Parquet shards of float16 (`resources/shards.py`) and statistics.parquet.
Paper: section 3 (activations) and section 4 (the MLP baseline).
Knobs worth turning: `activations.positions`, `neurons.per_layer`, `neurons.activation`.
"""
