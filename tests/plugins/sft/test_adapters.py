"""Adapters alone are trained, as configured, and merged into the model."""

from __future__ import annotations

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.plugins.rl.dpo import DPOConfig
from llmstages.plugins.sft.chat import ChatConfig
from llmstages.text import templates
from llmstages.train.adapters import lora_adapter
from llmstages.train.trainer import load_model, load_tokenizer
from tests.plugins.sft.helpers import answer, fine_tune
from tests.tiny import TALK, perform, saved_model, tiny_model, tiny_tokenizer


def test_lora_trains_adapters_and_merges_them(tmp_path, model, chats):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    config = ChatConfig(max_length=64, lora_r=4, epochs=10.0, keep_adapter=True)
    made, metrics = fine_tune(tmp_path / "sft", config, model, chats)
    before = load_file(model.path / "model.safetensors")
    after = load_file(made.path / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed)
    # Two matrices of rank 4 for each layer.
    linear = [weight.shape for name, weight in before.items() if name.endswith("proj.weight")]
    trained = metrics["trained_parameters"]
    assert trained == sum(4 * (rows + columns) for rows, columns in linear)
    assert any(f"{trained:,} weights of rank-4 adapters" in line for line in perform.said)

    ids = torch.tensor([[1, 5, 9, 40, 77, 3]])
    adapted = PeftModel.from_pretrained(load_model(model, None), made.path / "adapter")
    with torch.no_grad():
        merged_logits = load_model(made, None).eval()(ids).logits
        adapted_logits = adapted.eval()(ids).logits
        base_logits = load_model(model, None).eval()(ids).logits
    assert torch.allclose(merged_logits, adapted_logits, atol=1e-5)
    assert not torch.allclose(merged_logits, base_logits, atol=1e-3)


@pytest.mark.parametrize("config_class", [ChatConfig, DPOConfig])
def test_by_default_an_adapter_is_on_all_linear_layers_with_twice_the_rank(config_class):
    from peft import LoraConfig

    expected = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapter = lora_adapter(build_config(config_class, {"lora_r": 4}, "step"))
    assert adapter.to_dict() == expected.to_dict()
    assert lora_adapter(build_config(config_class, {}, "step")) is None


def test_scale_dropout_and_layers_of_an_adapter_are_options():
    values = {
        "lora_r": 4,
        "lora_alpha": 6.0,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
    }
    adapter = lora_adapter(build_config(ChatConfig, values, "sft"))
    assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (4, 6.0, 0.1)
    assert adapter.target_modules == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    "value", [{"lora_alpha": 8.0}, {"lora_dropout": 0.1}, {"target_modules": ["q_proj"]}]
)
@pytest.mark.parametrize("config_class", [ChatConfig, DPOConfig])
def test_options_of_an_adapter_need_a_rank(config_class, value):
    with pytest.raises(StageError, match="lora_r=16"):
        build_config(config_class, value, "step")


def test_named_tokens_are_trained_beside_an_adapter():
    net = tiny_model(tiny_tokenizer())
    adapter = lora_adapter(ChatConfig(lora_r=4), net, [7, 9])
    assert adapter.trainable_token_indices == {"embed_tokens": [7, 9]}


def test_adapters_on_a_model_in_four_bits(tmp_path, chats):
    import torch

    with pytest.raises(ValueError, match="set their rank"):
        ChatConfig(qlora=True)
    model = saved_model(tmp_path / "base", hidden=64)
    config = ChatConfig(
        max_length=64,
        lora_r=8,
        qlora=True,
        epochs=200.0,
        learning_rate=2e-2,
        batch_size=2,
        warmup_steps=2,
        template="llama3",
    )
    try:
        import bitsandbytes  # noqa: F401  (asks whether it is installed)
    except ImportError:
        with pytest.raises(StageError, match=r"pip install 'llmstages\[qlora\]'"):
            fine_tune(tmp_path / "without", config, model, chats)
        return
    made, metrics = fine_tune(tmp_path / "sft", config, model, chats)
    net = load_model(made, None)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert metrics["loss_last"] < 0.2 * metrics["loss_first"]
    assert answer(made).text == TALK[1]["content"]


def test_control_tokens_that_are_untrained_in_the_model_are_trained_under_lora_too(tmp_path, chats):
    """Reserved tokens, as in Llama 3: tokenizer and embeddings have them, but untrained."""
    from safetensors.torch import load_file

    model = saved_model(tmp_path / "base")
    tokenizer, net = load_tokenizer(model.path), load_model(model, None)
    own_template = tokenizer.chat_template
    templates.install(tokenizer, "llama3")
    tokenizer.chat_template = own_template
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|pad|>"
    # Eight more rows, which no token has.
    net.resize_token_embeddings(len(tokenizer) + 8, mean_resizing=False)
    net.save_pretrained(model.path)
    tokenizer.save_pretrained(model.path)
    config = ChatConfig(max_length=64, epochs=20.0, lora_r=4, template="llama3")
    made, metrics = fine_tune(tmp_path / "sft", config, model, chats)
    before, after = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (model.path, made.path)
    )
    changed = {row for row in range(len(before)) if not (before[row] == after[row]).all()}
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    assert metrics["new_tokens"] == 0
    assert changed == set(tokenizer.convert_tokens_to_ids(marks))
