"""Room `dashboard`: every unit's explanation, contexts and rollouts as a static site.

In: contexts, interpretations, scores, categories, SAE, adapter, activations, dataset. Does: writes lazily loaded
chunks and one page that opens from a file or any web server. Out: `index.html` and `data/`. Paper: the authors'
feature dashboards (figures 7 to 10). Knobs worth turning: `units_per_chunk`, `full_rollouts`.
"""
