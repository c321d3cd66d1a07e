"""Benchmarks: what the adapter buys, arm by arm, with honest error bars (paper: Tables 1 and 2).

In: `lora_checkpoint`, `full_finetune_checkpoint` and the questions of each benchmark.
Does: asks the base model, the LoRA, the full finetune and the LoRA without its attention or MLP part every question
through lm-eval, keeps every answer by a hash of what made it, extracts and grades as s1 did, and counts.
Out: `benchmark_scores`: `records.parquet` (one row per arm, question and sample), `scores.parquet`, `pairs.parquet`
(exact McNemar), `recovery.parquet` (Fieller's interval), Tables 1 and 2 beside the published numbers.
Paper: section 3 (Table 1) and section 4 (Table 2); s1's evaluation harness for prompts, extraction and grading.
Knobs worth turning: `benchmarks.tasks`, `benchmarks.arms`, `benchmarks.adapters`, `benchmarks.backend`,
`benchmarks.samples` with `benchmarks.temperature`, `benchmarks.wait_times` (budget forcing), `benchmarks.judge`.
"""
