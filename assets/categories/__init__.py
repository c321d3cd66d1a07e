"""Categories: what kinds of thing the units stand for, and how much of the activation each kind holds.

In: `interpretations`, `max_activating_contexts` and, for a subset of rollouts, the shards and the SAE. Does: makes a
taxonomy (paper B.2, or predicate kinds offline), puts every unit into one of its entries, sums activations per entry
(figure 2) and compares the classes of directions, neurons and latents (figure 1).
Out: `feature_categories` (category and subcategory per unit, taxonomy.json) and `category_densities`.
Paper: section 4, figures 1 and 2, appendix B.2. Knobs worth turning: `provider`, `taxonomy_model`, `rollouts`.
"""
