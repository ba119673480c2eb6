"""Chat templates that other people made, from the installed TRL, with small tokenizers for them.

A tokenizer here is a byte-level BPE of some hundred tokens that has the control tokens of the
template's own model, so everything but the quality of text is as with that model.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from tests.tiny import TEXTS

CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
LLAMA = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
)
GEMMA = ("<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")

# template -> (control tokens, bos, eos, pad, the token that ends a turn)
KNOWN: dict[str, tuple[tuple[str, ...], str | None, str, str, str]] = {
    "qwen2_5": (CHATML, None, "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
    "qwen3": (CHATML, None, "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
    "qwen3_training": (CHATML, None, "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
    "llama3": (LLAMA, LLAMA[0], LLAMA[1], LLAMA[-1], "<|eot_id|>"),
    "llama3_training": (LLAMA, LLAMA[0], "<|eot_id|>", "<|eot_id|>", "<|eot_id|>"),
    "gemma3": (GEMMA, "<bos>", "<eos>", "<pad>", "<end_of_turn>"),
}
# SmolLM2 begins every turn with its bos token and pads with the one that ends a turn.
SMOLLM2 = "smollm2"
KNOWN[SMOLLM2] = (CHATML, "<|im_start|>", "<|im_end|>", "<|im_end|>", "<|im_end|>")
TEMPLATE_OF = {SMOLLM2: "qwen2_5"}


@cache
def tokenizer_of(name: str) -> Any:
    """A tokenizer with the template ``name``, of those in KNOWN."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    tokens, bos, eos, pad, _ = KNOWN[name]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=330, show_progress=False)
    special: dict[str, Any] = {"eos_token": eos, "pad_token": pad}
    if bos:
        special["bos_token"] = bos
    special["additional_special_tokens"] = [
        token for token in tokens if token not in special.values()
    ]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, clean_up_tokenization_spaces=False, **special
    )
    file = f"{TEMPLATE_OF.get(name, name)}.jinja"
    template = files("trl").joinpath("chat_templates", file).read_text(encoding="utf-8")
    tokenizer.chat_template = template
    tokenizer.padding_side = "left"
    return tokenizer


def end_of_turn(name: str) -> int:
    """Id of the token that ends a turn."""
    return tokenizer_of(name).convert_tokens_to_ids(KNOWN[name][-1])


def saved_real_model(folder: Any, name: str, hidden: int = 32) -> Any:
    """A random tiny llama with a tokenizer of ``tokenizer_of``, as a model artifact."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmstages.core.stage import Artifact

    tokenizer = tokenizer_of(name)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Artifact(folder.name, "model", folder, folder.name)
