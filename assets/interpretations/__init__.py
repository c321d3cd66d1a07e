"""Interpretations: what each unit stands for, how sure that is, and how well the words predict the unit.

In: `s1k_dataset`, `max_activating_contexts`. Does: explains every unit from its strongest contexts (paper B.1), with an
LLM or with the offline statistical explainer, then scores every explanation on rollouts that it never saw.
Out: `interpretations` (explanation, class 0/1/2, reasoning), `interpretation_scores` (balanced accuracy, intervals).
Paper: section 4 and appendix B.1. Knobs worth turning: `provider`, `model`, `contexts_shown`, `held_out_share`.
"""
