"""Packed documents do not see each other, whichever way attention is computed.

flash-attn runs on GPUs alone. Stand-ins with its interface take its place here, and everything
around them is the code of transformers, which decides what they are told about documents.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import transformers.integrations.flash_attention as flash_layer
import transformers.modeling_flash_attention_utils as flash
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import flash_attention_mask

from llmstages.core.errors import StageError
from llmstages.plugins.pretrain import model as pretrain_model
from llmstages.plugins.pretrain.causal_lm import CausalLM, CausalLMConfig
from llmstages.train.batches import collate
from llmstages.train.isolation import require_isolation
from tests.tiny import tiny_tokenizer

FIRST, SECOND = 20, 12  # tokens of the two documents of a row
ATTENTION = ["sdpa", "eager", "flash_attention_2"]


def attend(query, key, value, causal, softmax_scale=None):
    """Attention of [rows, tokens, heads, size], as flash-attn orders them."""
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2)


def plain_kernel(query, key, value, causal=False, softmax_scale=None, **_):
    return attend(query, key, value, causal, softmax_scale)


def varlen_kernel(query, key, value, cu_seqlens_q, cu_seqlens_k, causal=False, **options):
    out = torch.empty_like(query)
    bounds = cu_seqlens_q.tolist()
    for begin, end in pairwise(bounds):
        part = slice(begin, end)
        scale = options.get("softmax_scale")
        states = (states[None, part] for states in (query, key, value))
        out[part] = attend(*states, causal, scale)[0]
    return out


@pytest.fixture
def stand_in(monkeypatch):
    """flash-attn as far as transformers needs it here."""
    kernels = (plain_kernel, varlen_kernel, None, None, None)

    def arguments(**options):
        return {"causal": True, "softmax_scale": options["softmax_scale"]}

    monkeypatch.setattr(
        flash, "lazy_import_flash_attention", lambda *_: (kernels, (arguments, arguments))
    )
    # The kernels need half precision. The stand-ins do not, and are exact without it.
    monkeypatch.setattr(flash_layer, "get_target_dtype", lambda *_: None)
    AttentionInterface.register("flash_stand_in", flash_attention_forward)
    AttentionMaskInterface.register("flash_stand_in", flash_attention_mask)


def fresh(architecture, attention):
    config = CausalLMConfig(
        architecture=architecture,
        attention=attention,
        init="plain",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        max_length=32,
    )
    torch.manual_seed(0)
    net = CausalLM().fresh(config, tiny_tokenizer()).eval()
    if attention == "eager":
        net.set_attn_implementation("eager")
    if attention == "flash_attention_2":
        for module in net.modules():
            if hasattr(module, "config"):
                module.config._attn_implementation = "flash_stand_in"
    return net, pretrain_model.in_one_row(config)


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_a_document_gets_the_same_scores_alone_and_packed(stand_in, architecture, attention, rows):
    net, one_row = fresh(architecture, attention)
    ids = torch.randint(10, 300, (rows, FIRST + SECOND)).tolist()
    positions = [*range(FIRST), *range(SECOND)]
    batch = collate(
        [{"input_ids": row, "labels": row, "position_ids": positions} for row in ids],
        one_row=one_row,
    )
    alone = torch.tensor([row[FIRST:] for row in ids])
    with torch.no_grad():
        packed = net(**batch).logits.reshape(rows, FIRST + SECOND, -1)[:, FIRST:]
        expected = net(input_ids=alone, use_cache=False).logits
    assert (packed - expected).abs().max() < 1e-5


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_the_probe_accepts_what_is_offered(stand_in, architecture, attention):
    net, one_row = fresh(architecture, attention)
    require_isolation(net, "pretrain", "", one_row)
    assert next(net.parameters()).dtype == torch.float32


def test_the_probe_refuses_flash_attention_with_several_rows(stand_in):
    net, _ = fresh("llama", "flash_attention_2")
    with pytest.raises(StageError, match="does not keep the documents of a packed row apart"):
        require_isolation(net, "pretrain", "Try sdpa.", one_row=False)


def test_a_batch_in_one_row_has_the_same_loss():
    net, _ = fresh("llama", "sdpa")
    ids = torch.randint(10, 300, (3, FIRST + SECOND)).tolist()
    rows = []
    for row in ids:
        labels = list(row)
        labels[0] = labels[FIRST] = -100
        positions = [*range(FIRST), *range(SECOND)]
        rows.append({"input_ids": row, "labels": labels, "position_ids": positions})
    with torch.no_grad():
        several, one = (net(**collate(rows, one_row=flat)).loss for flat in (False, True))
    assert one == pytest.approx(several.item(), rel=1e-5)
