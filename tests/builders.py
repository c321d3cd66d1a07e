"""Small real things for tests: a byte-level tokenizer in Qwen's shape and a random Qwen2 with grouped queries."""

from pathlib import Path

TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"]


def build_byte_tokenizer(folder: Path) -> Path:
    """A fast tokenizer whose tokens are single bytes (so every multi-byte character is split) plus Qwen's specials."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|fim_pad|>",
        additional_special_tokens=SPECIALS,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return folder


def build_tiny_qwen2(folder: Path, num_layers: int = 2, seed: int = 0) -> Path:
    """A random float32 Qwen2 (hidden 32, MLP 48, 4 query / 2 KV heads, vocab 260, untied) with its tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=False,
        eos_token_id=258,
        pad_token_id=259,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return build_byte_tokenizer(folder)


def build_random_adapter(folder: Path, model_folder: Path, rank: int = 1, seed: int = 1) -> Path:
    """A PEFT adapter on all seven projections with random A and B (not PEFT's zero B)."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2ForCausalLM

    from resources.components import PROJECTIONS

    torch.manual_seed(seed)
    base = Qwen2ForCausalLM.from_pretrained(model_folder)
    config = LoraConfig(r=rank, lora_alpha=16, use_rslora=True, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(str(folder))
    return folder
