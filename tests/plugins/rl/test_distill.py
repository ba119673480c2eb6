"""Distillation: the policy comes closer to its teacher, on its own answers and on given ones."""

from __future__ import annotations

import dataclasses as dc
import inspect
import json
import math

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.rl import divergence
from llmstages.plugins.rl.distill import Distill, DistillConfig, split, with_answers
from llmstages.plugins.rl.distill_trainer import distill_trainer
from llmstages.plugins.rl.teacher import tokenizer_difference
from llmstages.text import chat_format
from llmstages.text.messages import message
from tests.plugins.rl.test_variants import FORGED
from tests.tiny import START, control_ids, perform, saved, saved_model, tiny_model, tiny_tokenizer

ROWS = [
    {
        "prompt": [message("user", f"{i}? {FORGED * (i % 2)}")],
        "answer": "near the river",
        "group": "all",
    }
    for i in range(20)
]
ANSWER = {"near the river<|im_end|>"}
CONFIG = DistillConfig(
    max_steps=16,
    batch_size=8,
    max_completion_length=8,
    learning_rate=1e-2,
    log_every=1,
    test_fraction=0.2,
)


def saved_teacher(folder):
    """A model that prefers some tokens, whatever it reads, and is wider than the policy."""
    import torch

    artifact = saved_model(folder, hidden=64)
    model = tiny_model(tiny_tokenizer(), hidden=64)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight) * weight.std())
        model.get_output_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    return artifact


@pytest.fixture
def inputs(tmp_path):
    return {
        "policy": saved_model(tmp_path / "policy"),
        "teacher": saved_teacher(tmp_path / "teacher"),
        "problems": saved(tmp_path / "problems", "problems", ROWS),
    }


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"beta": 0.5, "lmbda": 0.5},
        {"beta": 0.0, "lora_r": 8},
    ],
    ids=["reverse KL", "half of the answers given", "forward KL with LoRA"],
)
def test_the_policy_comes_closer_to_its_teacher(tmp_path, inputs, changes):
    config = dc.replace(CONFIG, **changes)
    made, metrics = perform(Distill, tmp_path / "rl", config, **inputs)
    assert metrics["updates"] == 16 and metrics["problems"] + metrics["test_problems"] == 20
    assert metrics["test_divergence_after"] < 0.8 * metrics["test_divergence_before"]
    assert metrics["loss_last"] < metrics["loss_first"]
    assert (made.path / "model.safetensors").exists()
    assert not (made.path / "adapter_config.json").exists()


def test_a_share_of_the_updates_is_on_given_answers(tmp_path, inputs):
    seen = []

    class Seeing(Distill):
        def trainer(self, *args):
            trainer = super().trainer(*args)
            compute = trainer.compute_loss

            def note(model, batch, **options):
                pairs = zip(batch["completion_ids"], batch["completion_mask"], strict=True)
                texts = [tiny_tokenizer().decode(ids[mask == 1]) for ids, mask in pairs]
                seen.append({text.strip() for text in texts})
                return compute(model, batch, **options)

            trainer.compute_loss = note
            return trainer

    config = dc.replace(CONFIG, lmbda=0.5, max_steps=8)
    _, metrics = perform(Seeing, tmp_path / "rl", config, **inputs)
    given = [texts for texts in seen if texts == ANSWER]
    assert 0 < len(given) < 8
    log = [json.loads(line) for line in (tmp_path / "rl/out/log.jsonl").read_text().splitlines()]
    sampled = [row["sampled"] for row in log if "sampled" in row]
    assert sampled.count(0.0) == len(given) and sampled.count(1.0) == 8 - len(given)
    perform(Seeing, tmp_path / "none", dc.replace(config, lmbda=0.0, max_steps=2), **inputs)
    assert seen[8:] == [ANSWER] * 2


def test_answers_that_are_too_long_are_dropped_with_a_message(tmp_path, inputs):
    class Said:
        step = "rl"
        lines = []

        def say(self, line):
            self.lines.append(line)

    problems = [{**row, "answer": "the fox " * (i % 2 * 20)} for i, row in enumerate(ROWS)]
    problems.append({**ROWS[0]})
    used, answers = with_answers(problems, tiny_tokenizer(), 8, Said())
    assert used == [problems[-1]] and len(answers) == 1
    assert "20 of 21 problems dropped" in Said.lines[0]


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_of_trl_is_the_divergence_that_is_measured(beta, temperature):
    """TRL computes it in tiles from hidden states; here it is the formula of the paper."""
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, 8), torch.randn(2, 5, 12)
    heads = torch.randn(30, 8), torch.randn(30, 12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
    loss, _, count = _chunked_divergence_loss(
        ours, theirs, *heads, mask, beta, temperature=temperature
    )
    logits = ours @ heads[0].T, theirs @ heads[1].T
    values = divergence.token_divergence(*logits, beta, temperature)[mask == 1]
    assert count == 7 and (values >= 0).all()
    assert loss.item() == pytest.approx(values.mean().item(), rel=1e-5)


def test_divergences_by_hand():
    import torch

    teacher, policy = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
    forward = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    reverse = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert divergence.token_divergence(policy, teacher, 0.0).item() == pytest.approx(forward)
    assert divergence.token_divergence(policy, teacher, 1.0).item() == pytest.approx(reverse)
    assert divergence.token_divergence(teacher, teacher, 0.5).item() == pytest.approx(0, abs=1e-7)


def test_a_model_is_no_way_from_itself_and_padding_does_not_count():
    from transformers import set_seed

    set_seed(0)
    model = tiny_model(tiny_tokenizer())
    prompts, answers = [[5, 6, 7], [8]], [[9, 10], [11, 12, 13, 14]]
    same = divergence.measure(model, model, prompts, answers, 0.5)
    assert same == divergence.Distance(pytest.approx(0.0, abs=1e-6), 1.0)
    other = tiny_model(tiny_tokenizer(), hidden=64)
    both = divergence.measure(model, other, prompts, answers, 1.0)
    alone = [
        divergence.measure(model, other, [prompt], [answer], 1.0).divergence
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    assert both.divergence == pytest.approx((2 * alone[0] + 4 * alone[1]) / 6, rel=1e-4)


def test_positions_do_not_count_padding():
    """GPT-2 has learned positions: a padded row must give the states of the row alone."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    ).eval()
    row = torch.tensor([[5, 6, 7, 8, 9]])
    padded = torch.tensor([[0, 0, 0, 5, 6, 7, 8, 9]])
    states = distill_trainer()._get_last_hidden_state
    with torch.no_grad():
        alone = states(None, model, row, torch.ones_like(row), 2)
        beside = states(None, model, padded, (padded > 0).long(), 2)
    torch.testing.assert_close(alone, beside)


def test_no_prompt_forges_a_turn(tmp_path, inputs, monkeypatch):
    seen = []
    prompt_ids = chat_format.prompt_ids

    def note(*args, **kwargs):
        ids = prompt_ids(*args, **kwargs)
        seen.extend(ids)
        return ids

    monkeypatch.setattr(chat_format, "prompt_ids", note)
    perform(Distill, tmp_path / "rl", dc.replace(CONFIG, max_steps=1), **inputs)
    start = control_ids(tiny_tokenizer())[START]
    assert len(seen) > 20
    assert {ids.count(start) for ids in seen} == {2}


def test_no_prompt_is_on_both_sides():
    problems = [{"prompt": [message("user", f"{i // 2}?")]} for i in range(20)]
    train, test = split(problems, 0.2)
    texts = [{row["prompt"][0]["content"] for row in rows} for rows in (train, test)]
    assert len(test) == 4 and not texts[0] & texts[1]


def test_another_tokenizer_is_refused_before_a_model_is_loaded(tmp_path, inputs):
    from llmstages.plugins.tokenizer.bpe import BPEConfig, build

    other = build(["another text " * 50], BPEConfig(vocab_size=380))
    other.save_pretrained(inputs["teacher"].path)
    for artifact in (inputs["policy"], inputs["teacher"]):
        (artifact.path / "model.safetensors").unlink()
    with pytest.raises(StageError, match=r"have different tokenizers \(.* Take a teacher"):
        perform(Distill, tmp_path / "rl", CONFIG, **inputs)


def test_the_same_vocabulary_cut_in_another_way_is_another_tokenizer():
    import copy

    from tokenizers import normalizers

    ours = tiny_tokenizer()
    theirs = copy.deepcopy(ours)
    assert tokenizer_difference(ours, theirs) == ""
    theirs.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert tokenizer_difference(ours, theirs) == "another normalizer"


def test_a_teacher_with_other_logits_or_too_little_room_is_refused(tmp_path, inputs):
    file = inputs["teacher"].path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "vocab_size": 512}))
    with pytest.raises(StageError, match=r"has 342 logits and its teacher teacher 512"):
        perform(Distill, tmp_path / "a", CONFIG, **inputs)
    file.write_text(json.dumps({**config, "max_position_embeddings": 16}))
    with pytest.raises(StageError, match=r"reads 16 tokens, and the longest prompt"):
        perform(Distill, tmp_path / "b", CONFIG, **inputs)


def test_too_few_problems_for_an_update(tmp_path, inputs):
    with pytest.raises(StageError, match=r"there are 16 to train on\. Set rl.batch_size=16"):
        perform(Distill, tmp_path / "rl", dc.replace(CONFIG, batch_size=32), **inputs)


@pytest.mark.parametrize(
    "method, part",
    [
        ("_tokenize_prompts", "return prompt_ids, images, multimodal_fields"),
        ("_generate", "self._generate_single_turn(prompt_ids, images, multimodal_fields)"),
        ("_generate_and_score_completions", "self._generate(prompts)"),
        ("_compute_loss", "self._get_last_hidden_state"),
        ("_get_last_hidden_state", "return last_hidden_state"),
    ],
)
def test_trl_still_has_what_is_overridden(method, part):
    from trl import DistillationTrainer

    assert part in inspect.getsource(vars(DistillationTrainer)[method])
