"""Folder -> GGUF -> folder: the same weights, the same tokens, the same text of a template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmstages.convert import gguf_weights
from llmstages.convert.gguf_reader import gguf_facts, read_gguf
from llmstages.convert.gguf_writer import write_gguf
from llmstages.core.errors import StageError
from llmstages.text.generation_tags import strip_generation
from tests.convert.models import byte_level_tokenizer, write_model

pytest.importorskip("gguf")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
MODELS = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, attention biases alone": ("llama", {"attention_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 32}),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama 3.2 rope": ("llama", {"rope_parameters": {**LLAMA3, "factor": 32.0}}),
    # Its effect shows within the few tokens of a test.
    "llama 3 rope from 32 tokens": (
        "llama",
        {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 32}},
    ),
    "linear rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
}
STRINGS = [
    "Hello world",
    "naïve café 12+34=46, 1,000 times",
    "  two  spaces\n\n\tand tabs\n",
    "I'm we'll DON'T they've",
    "日本語のテキスト 🙂 ½ ﬁ",
    "2026-11-25 10:30 3.14159 123456789",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a\r\nb c​d e\u0301",
]
DIALOGUE = [{"role": "user", "content": "Hi 12"}, {"role": "assistant", "content": "Yes."}]


def round_trip(folder: Path, tmp_path: Path, dtype: str = "float32") -> Path:
    write_gguf(folder, tmp_path / "model.gguf", dtype)
    read_gguf(tmp_path / "model.gguf", tmp_path / "back", lambda line: None)
    return tmp_path / "back"


def weights_of(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_logits_come_back(name, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    kind, changes = MODELS[name]
    folder = write_model(tmp_path / "model", kind, **changes)
    back = round_trip(folder, tmp_path)
    before, after = weights_of(folder), weights_of(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    # Rope settings are not weights: they show in what the model computes.
    ids = torch.arange(96)[None]
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (folder, back)]
    assert torch.allclose(*logits, atol=1e-4)
    config = json.loads((back / "config.json").read_text())
    assert "quantization_config" not in config
    assert not any(key.startswith("_") for key in config)


@pytest.mark.parametrize("dtype, worst", [("float16", 1e-3), ("bfloat16", 1e-2), ("q8_0", 1e-2)])
def test_smaller_types_are_near(dtype, worst, tmp_path):
    folder = write_model(tmp_path / "model")
    before, after = weights_of(folder), weights_of(round_trip(folder, tmp_path, dtype))
    for name, weight in before.items():
        difference = (weight - after[name].float()).abs().max()
        assert difference <= worst, name
    sizes = {"float16": 2, "bfloat16": 2, "q8_0": 34 / 32}
    matrices = sum(weight.numel() for weight in before.values() if weight.ndim == 2)
    written = (tmp_path / "model.gguf").stat().st_size
    assert written < matrices * sizes[dtype] + 40_000


@pytest.mark.parametrize(
    "pattern, digits", [("gpt2", False), ("gpt2", True), ("llama3", False), ("qwen", False)]
)
def test_tokens_come_back(pattern, digits, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = byte_level_tokenizer(pattern, digits)
    folder = write_model(tmp_path / "model", tokenizer=tokenizer)
    back = AutoTokenizer.from_pretrained(round_trip(folder, tmp_path))
    assert back.get_vocab() == tokenizer.get_vocab()
    for text in STRINGS:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"], text
    for name in ("bos_token", "eos_token", "pad_token", "all_special_tokens"):
        assert getattr(back, name) == getattr(tokenizer, name)
    assert "endgeneration" not in back.chat_template
    for open_turn in (False, True):
        texts = [
            each.apply_chat_template(DIALOGUE, tokenize=False, add_generation_prompt=open_turn)
            for each in (tokenizer, back)
        ]
        assert texts[0] == texts[1]


def test_a_tokenizer_that_adds_bos_still_does(tmp_path):
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = byte_level_tokenizer("llama3")
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos[0], "$A"], pair=None, special_tokens=[bos]
    )
    folder = write_model(tmp_path / "model", tokenizer=tokenizer)
    back = AutoTokenizer.from_pretrained(round_trip(folder, tmp_path))
    assert back("a")["input_ids"] == tokenizer("a")["input_ids"]
    assert back("a")["input_ids"][0] == tokenizer.bos_token_id


def test_facts_are_those_of_the_model(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = write_model(tmp_path / "model", tie_word_embeddings=True)
    write_gguf(folder, tmp_path / "model.gguf", "f16")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert gguf_facts(tmp_path / "model.gguf") == {
        "architecture": "llama",
        "parameters": model.num_parameters(),
        "context": 128,
        "vocab_size": model.config.vocab_size,
        "chat_template": True,
    }


@pytest.mark.parametrize("name", ["llama 3 rope from 32 tokens", "linear rope"])
def test_rope_settings_matter_within_these_tokens(name, tmp_path):
    """Otherwise the comparisons of logits would not see them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, changes = MODELS[name]
    folder = write_model(tmp_path / "model", kind, **changes)
    config = AutoConfig.from_pretrained(folder)
    theta = config.rope_parameters["rope_theta"]
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    ids = torch.arange(5, 101)[None]
    with torch.no_grad():
        scaled = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(folder, config=config)(ids).logits
    assert (scaled - plain).abs().max() > 0.5


def test_rotary_rows_come_back():
    import torch

    for shape in ((24, 5), (24,)):
        weight = torch.randn(shape)
        pairs = gguf_weights.to_pairs(weight, heads=3)
        assert not torch.equal(pairs, weight)
        assert torch.equal(gguf_weights.to_halves(pairs, heads=3), weight)


def test_rope_factors_are_those_of_transformers():
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 128, 2) / 128)
    factors = gguf_weights.Llama3Rope.of(LLAMA3).factors(500000.0, 128)
    assert torch.allclose(plain / torch.tensor(factors), scaled, rtol=1e-5)


def tags_of(template: str) -> list[str]:
    """The tags as Jinja's own lexer sees them, which leaves out comments."""
    import jinja2

    tokens = list(jinja2.Environment().lex(template))
    blocks = [index for index, (_, type, _) in enumerate(tokens) if type == "block_begin"]
    names = [tokens[index + 2][2] for index in blocks]
    return [name for name in names if name in ("generation", "endgeneration")]


def real_templates() -> list[Path]:
    import trl

    return sorted((Path(trl.__file__).parent / "chat_templates").glob("*training*.jinja"))


@pytest.mark.parametrize("path", real_templates(), ids=lambda path: path.stem)
def test_real_templates_render_the_same_without_their_tags(path):
    """TRL's training templates carry the tags; those of other makers do not."""
    tokenizer = byte_level_tokenizer()
    template = path.read_text()
    stripped = strip_generation(template)
    assert tags_of(template)
    assert not tags_of(stripped)
    system = [{"role": "system", "content": "Be brief."}]
    for dialogue in (DIALOGUE, system + DIALOGUE, DIALOGUE + DIALOGUE):
        texts = []
        for each in (template, stripped):
            tokenizer.chat_template = each
            try:
                texts.append(tokenizer.apply_chat_template(dialogue, tokenize=False))
            except Exception as error:  # a template may refuse a system turn
                texts.append(f"{type(error).__name__}: {error}")
        assert texts[0] == texts[1]


def test_a_loss_of_weights_is_refused(tmp_path, monkeypatch):
    """As if the biases were not completed: transformers would drop them without a message."""
    from llmstages.convert import gguf_reader

    monkeypatch.setattr(gguf_reader, "_complete_biases", lambda *_: None)
    folder = write_model(tmp_path / "model", attention_bias=True)
    with pytest.raises(StageError, match="the rest would be lost"):
        round_trip(folder, tmp_path)
    assert not (tmp_path / "back").exists()
