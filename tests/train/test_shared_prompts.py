"""Prompts shared by answers: the same log probabilities and gradients as from whole rows."""

from __future__ import annotations

import copy

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from llmstages.train.shared_prompts import share_prompts
from tests.tiny_architectures import VOCABULARY, random_model

GROUPS, ANSWERS, LENGTH = 3, 4, 7
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2", "mistral", "gemma2", "mixtral")
NO_LABEL = -100


def rows_of(distinct=GROUPS):
    """(ids, mask) of answers to prompts; both are padded, and groups are mixed."""
    draw = torch.Generator().manual_seed(0)
    count = GROUPS * ANSWERS
    prompts = torch.randint(3, VOCABULARY, (distinct, 9), generator=draw)
    prompt_mask = torch.ones_like(prompts)
    for place, padding in enumerate([4, 2, 3][:distinct]):  # two columns are padding in all
        prompt_mask[place, :padding] = 0
        prompts[place, :padding] = 0
    order = torch.randperm(count, generator=draw) % distinct
    answers = torch.randint(3, VOCABULARY, (count, LENGTH), generator=draw)
    lengths = torch.randint(1, LENGTH + 1, (count, 1), generator=draw)
    answer_mask = (torch.arange(LENGTH) < lengths).long()
    ids = torch.cat([prompts[order], answers * answer_mask], dim=1)
    return ids, torch.cat([prompt_mask[order], answer_mask], dim=1)


def whole_rows(model, ids, mask):
    """Log probabilities and entropies as TRL has them."""
    labels = ids.masked_fill(mask == 0, NO_LABEL)
    labels[:, :-LENGTH] = NO_LABEL
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels,
        fused_lm_head=True,
    )  # fmt: skip
    return output.log_probs[:, -LENGTH:], output.entropy[:, -LENGTH:]


def shared(model, ids, mask):
    labels = ids[:, -LENGTH:].masked_fill(mask[:, -LENGTH:] == 0, NO_LABEL)
    output = model(
        input_ids=ids, attention_mask=mask, shift_labels=labels, fused_lm_head=True,
        answer_tokens=LENGTH,
    )  # fmt: skip
    return output.log_probs, output.entropy


def gradients(model, values):
    """Gradients of a sum in which each token counts differently."""
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    model.zero_grad()
    (values * weights).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("distinct", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probabilities_and_gradients_are_those_of_whole_rows(architecture, distinct):
    model = random_model(architecture)
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    ids, mask = rows_of(distinct)
    logps, entropies = whole_rows(model, ids, mask)
    expected = gradients(model, logps)
    assert share_prompts(model)
    ours, our_entropies = shared(model, ids, mask)
    torch.testing.assert_close(ours, logps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(our_entropies, entropies, atol=1e-4, rtol=1e-4)
    for name, gradient in gradients(model, ours).items():
        limit = 1e-4 * float(expected[name].abs().max()) + 1e-6
        torch.testing.assert_close(gradient, expected[name], atol=limit, rtol=1e-3, msg=name)


def test_a_prompt_is_read_once_for_all_its_answers():
    model = random_model("llama")
    add_fused_lm_head(model)
    share_prompts(model)
    ids, mask = rows_of()
    shapes = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, args: shapes.append(tuple(args[0].shape[:2]))
    )
    model(
        input_ids=ids, attention_mask=mask, shift_labels=ids[:, -LENGTH:], fused_lm_head=True,
        answer_tokens=LENGTH,
    )  # fmt: skip
    assert shapes == [(GROUPS, 7), (GROUPS * ANSWERS, LENGTH - 1)], "columns of padding are gone"


def test_gradient_checkpointing_reads_whole_rows():
    model = random_model("llama").train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids, mask = rows_of()
    expected = gradients(model, whole_rows(model, ids, mask)[0])
    share_prompts(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found = gradients(model, shared(model, ids, mask)[0])
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3)


def test_other_calls_of_the_model_are_as_before():
    model = random_model("llama")
    ids, mask = rows_of()
    before = model(input_ids=ids, attention_mask=mask).logits
    share_prompts(model)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)


def test_a_copy_computes_with_its_own_weights():
    model = random_model("llama")
    share_prompts(model)
    ids, mask = rows_of()
    other = copy.deepcopy(model.model)
    for weight in other.parameters():
        weight.data.mul_(2)
    one, two = (
        layers(input_ids=ids, attention_mask=mask, answer_tokens=LENGTH).last_hidden_state
        for layers in (model.model, other)
    )
    assert not torch.allclose(one, two)


@pytest.mark.parametrize("architecture", ["bloom", "mamba"])
def test_models_with_another_memory_of_the_past_are_left_as_they_are(architecture):
    model = random_model(architecture)
    assert not share_prompts(model)
    assert "forward" not in vars(model.base_model)
