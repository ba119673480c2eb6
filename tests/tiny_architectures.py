"""Random models of architectures that others made, so small that tests can run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# With learned positions, with positions by rotation, with a bias, with a window, with a last
# softcap and scaled embeddings, with experts.
BUILT: dict[str, Callable[[Any], Any]] = {
    "llama": lambda tf: tf.LlamaConfig(**SIZES),
    "qwen2": lambda tf: tf.Qwen2Config(**SIZES),
    "qwen3": lambda tf: tf.Qwen3Config(**SIZES, head_dim=8),
    "gpt2": lambda tf: tf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=2
    ),
    "mistral": lambda tf: tf.MistralConfig(**SIZES, sliding_window=6),
    "gemma2": lambda tf: tf.Gemma2Config(**SIZES, head_dim=8, sliding_window=6),
    "mixtral": lambda tf: tf.MixtralConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1),
    "bloom": lambda tf: tf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda tf: tf.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
}


def random_model(architecture: str) -> Any:
    """A random model of an architecture (a key of ``BUILT``), the same one each time."""
    import transformers

    transformers.set_seed(0)
    config = BUILT[architecture](transformers)
    model = transformers.AutoModelForCausalLM.from_config(config)
    # Larger weights than a new model has, so that its answers are not one token again and again.
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.mul_(4)
    return model.eval()
