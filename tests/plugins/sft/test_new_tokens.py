"""New control tokens get sensible embeddings, and a model learns another template with them."""

from __future__ import annotations

import pytest

from llmstages.plugins.sft.chat import ChatConfig
from llmstages.plugins.sft.new_tokens import init_new_embeddings, spell_name
from llmstages.text import chat_format, templates
from llmstages.train.trainer import load_model, load_tokenizer
from tests.plugins.sft.helpers import answer, fine_tune
from tests.tiny import TALK, perform


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["semantic", "mean"])
def test_new_control_tokens_begin_as_the_words_they_spell_or_as_the_mean(model, tied, method):
    import torch

    net, tokenizer = load_model(model, None), load_tokenizer(model.path)
    if not tied:
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach() * 2)
        net.config.tie_word_embeddings = False
    old_input = net.get_input_embeddings().weight.detach().clone()
    old_output = net.get_output_embeddings().weight.detach().clone()
    new = templates.install(tokenizer, "zephyr")
    assert set(new) == {"<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"}
    ids = init_new_embeddings(net, tokenizer, new, method)
    spelling = spell_name(tokenizer, "<|user|>")
    assert tokenizer.decode(spelling).strip() == "user"
    assert spell_name(tokenizer, "<s>") == []
    for old, layer in (
        (old_input, net.get_input_embeddings()),
        (old_output, net.get_output_embeddings()),
    ):
        weight = layer.weight.detach()
        assert torch.equal(weight[: len(old)], old)
        assert weight.shape[0] == len(tokenizer)
        user, bos = (weight[ids[new.index(token)]] for token in ("<|user|>", "<s>"))
        expected = old[spelling].mean(0) if method == "semantic" else old.mean(0)
        assert torch.allclose(user, expected, atol=1e-6)
        assert torch.allclose(bos, old.mean(0), atol=1e-6)
    is_tied = net.get_input_embeddings().weight is net.get_output_embeddings().weight
    assert is_tied is tied
    end = chat_format.control_tokens(tokenizer).end
    assert end == tokenizer.convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_model_learns_another_template_with_new_tokens(tmp_path, model, chats, rank, tied):
    import torch

    if not tied:
        net = load_model(model, None)
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach().clone())
        net.config.tie_word_embeddings = False
        net.save_pretrained(model.path)
    config = ChatConfig(
        max_length=64,
        epochs=200.0 if rank else 60.0,
        learning_rate=2e-2 if rank else 5e-3,
        batch_size=2,
        warmup_steps=2,
        template="llama3",
        lora_r=rank,
        keep_adapter=True,
    )
    made, metrics = fine_tune(tmp_path / "sft", config, model, chats)
    assert metrics["new_tokens"] == 5
    assert any("5 new control tokens" in line for line in perform.said)
    reply = answer(made)
    assert reply.ended
    assert reply.text == TALK[1]["content"]
    if rank:
        check_only_new_rows_are_trained(model, made, metrics, tied)
        check_adapter_equals_merged_model(model, made)


def check_only_new_rows_are_trained(model, made, metrics, tied):
    """Of the embeddings, LoRA changes only the rows of the five new tokens."""
    import torch
    from safetensors.torch import load_file

    before = load_file(model.path / "model.safetensors")
    after = load_file(made.path / "model.safetensors")
    rows, width = before["model.embed_tokens.weight"].shape
    tables = ["model.embed_tokens.weight"]
    if not tied:
        tables.append("lm_head.weight")
    for name in tables:
        assert torch.equal(before[name], after[name][:rows])
    end = load_tokenizer(made.path).convert_tokens_to_ids("<|eot_id|>")
    embeddings = after["model.embed_tokens.weight"]
    assert not torch.allclose(embeddings[end], embeddings[:rows].mean(0), atol=1e-2)
    linear = [weight.shape for name, weight in before.items() if name.endswith("proj.weight")]
    adapters = sum(4 * sum(shape) for shape in linear)
    assert metrics["trained_parameters"] == adapters + 5 * width * len(tables)


def check_adapter_equals_merged_model(model, made):
    """The adapter that is kept, on the model before, computes what the merged model computes."""
    import torch
    from peft import PeftModel

    grown = load_model(model, None)
    rows = grown.get_input_embeddings().weight.shape[0]
    grown.resize_token_embeddings(rows + 5, mean_resizing=False)
    adapted = PeftModel.from_pretrained(grown, made.path / "adapter").eval()
    end = load_tokenizer(made.path).convert_tokens_to_ids("<|eot_id|>")
    ids = torch.tensor([[1, 5, rows, rows + 1, 77, end]])
    with torch.no_grad():
        merged_logits = load_model(made, None).eval()(ids).logits
        assert torch.allclose(merged_logits, adapted(ids).logits, atol=1e-4)
