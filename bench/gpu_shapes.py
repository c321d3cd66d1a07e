"""The Qwen2.5 shapes of the GPU benches (from config.json on the hub), and a toy one that rehearses on a CPU."""

from transformers import Qwen2Config

SHAPES: dict[str, dict[str, int]] = {
    "toy": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 512},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151936},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064},
    "32b": {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
            "num_key_value_heads": 8, "vocab_size": 152064},
}  # fmt: skip


def qwen2(shape: str) -> Qwen2Config:
    """The shape as transformers' configuration; only the smallest model ties its embeddings."""
    return Qwen2Config(**SHAPES[shape], max_position_embeddings=32_768, tie_word_embeddings=shape == "0.5b")
