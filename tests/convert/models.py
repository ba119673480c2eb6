"""Tiny random models of several architectures, with tokenizers of several kinds, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmstages.text.pretokenize import GPT4, QWEN

TEXTS = ["The cat's 12 dogs ran 345 miles, naïve café 東京 🙂 I'LL we've x==y"] * 30
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\n"
    "{%- if message['role'] == 'assistant' %}\n"
    "{% generation %}{{ message['content'] }}<|im_end|>{%- endgeneration -%}\n"
    "{% else %}\n{{ message['content'] }}<|im_end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level_tokenizer(pattern: str = "gpt2", digits: bool = False, **options: Any) -> Any:
    """A trained byte-level BPE; pattern: gpt2, llama3 or qwen."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers
    from tokenizers import pre_tokenizers as parts
    from transformers import PreTrainedTokenizerFast

    engine: Any = Tokenizer(models.BPE(ignore_merges=pattern == "llama3"))
    if pattern == "gpt2":
        chain: list[Any] = [parts.ByteLevel(add_prefix_space=False)]
    else:
        expression = Regex(GPT4 if pattern == "llama3" else QWEN)
        chain = [
            parts.Split(expression, behavior="isolated"),
            parts.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    if digits:
        chain.insert(0, parts.Digits(individual_digits=True))
    engine.pre_tokenizer = parts.Sequence(chain)
    engine.decoder = decoders.ByteLevel()
    if pattern == "qwen":
        engine.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=sorted(parts.ByteLevel.alphabet()),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    engine.train_from_iterator(TEXTS, trainer)
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[2], "pad_token": SPECIAL[3]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=engine, **{**names, **options})
    tokenizer.chat_template = CHATML
    return tokenizer


def sizes(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """Arguments of a tiny configuration; the vocabulary is padded to a multiple of 8."""
    return {
        "vocab_size": (len(tokenizer) + 8) // 8 * 8,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **changes,
    }


def write_model(folder: Path, kind: str = "llama", tokenizer: Any = None, **changes: Any) -> Path:
    """A random model of the architecture; every weight, biases too, differs from zero."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer or byte_level_tokenizer()
    torch.manual_seed(7)
    config = AutoConfig.for_model(kind, **sizes(tokenizer, **changes))
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        weight.data += torch.randn_like(weight) * 0.05
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
