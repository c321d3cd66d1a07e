"""Rollouts: s1K-1.1 rendered as the paper's training text and tokenised once, for every room to the right.

In: a dataset with s1K-1.1's columns (hub id and revision, or a folder) and the base model's tokenizer.
Does: think/answer blocks, the "Answer: " rule, block size, loss mask on the assistant's tokens, roles and spans.
Out: `s1k_dataset`: rollouts.parquet and tokens.parquet. Paper: section 2.1 (training), appendix A.1.
Knobs worth turning: `dataset.max_rollouts`, `dataset.block_size`, `dataset.text_form`.
"""
