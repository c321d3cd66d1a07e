"""The rank-1 LoRA and the full finetune: one training loop, the paper's recipe, or a published checkpoint instead.

In: `s1k_dataset` and the base model. Does: SFT on the assistant's tokens, packed without padding, on any number of
processes. Out: `lora_checkpoint` (PEFT folder), `full_finetune_checkpoint` (transformers folder). Paper: section 2.1.
Knobs worth turning: `lora.rank`, `lora.projections`, `lora.layers`, `lora.learning_rate`, `lora.epochs`, `lora.source`.
"""
