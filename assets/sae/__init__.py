"""A BatchTopK sparse autoencoder over the adapter's state.

In: activation shards (one scalar per component and token); data set and adapter for its effect on the model.
Does: trains a dictionary of `expansion` x components latents of which `k` fire per token on average, learns the fixed
threshold by which it is used from then on, and measures it on held-out rollouts: as a dictionary, and inside the model.
Out: `sae_weights.safetensors` + `cfg.json` that SAELens loads, a state dict for dictionary_learning, `latents.parquet`.
Paper: section 4 and appendix (3584 latents, k = 16, about 2000 of them live).
Knobs worth turning: `k`, `expansion`, `preset` (`authors` is the paper's recipe), `seed`, `layers`, `projections`.
"""
