"""What every part of the adapter is worth to the model, and what happens when a part is turned up.

In: dataset, adapter, activation shards (means, percentiles, latents' activations) and the SAE.
Does: `ablation_kl` removes components, layers, projections and groups, `latent_kl` single SAE latents, and both measure
KL to the full adapter; `steering_effects` adds or scales one activation up to 100 times its 99th percentile and
reads what the model then says.
Out: `ablation.parquet` (+ `interactions.parquet`, `rollouts.parquet`), `steering.parquet` (+ `continuations.parquet`).
Paper: figure 3 (layers 44-46 and 62, MLP over attention, gate_proj first) and the steering experiment.
Knobs worth turning: `replacement`, `positions`, `group_size`, `latents`, `greedy_steps`; `factors`, `units`, `mode`.
"""
