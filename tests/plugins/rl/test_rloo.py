"""RLOO with tools: an answer is what the policy wrote, in its weight, its penalty and its gradient.

What it shares with the other variants is in test_variants.py and test_tool_rollouts.py.
"""

from __future__ import annotations

import inspect

import pytest

from llmstages.plugins.rl import policy
from llmstages.plugins.rl.rloo import RLOO, RLOOConfig
from llmstages.plugins.rl.rloo_trainer import rloo_trainer
from llmstages.plugins.rl.safe_trainer import safe_trainer
from tests.plugins.rl.test_tool_rollouts import OPTIONS, calling, words
from tests.plugins.rl.test_tool_rollouts import inputs as inputs
from tests.tiny import perform, tiny_tokenizer


class Long:
    """Pays for each letter of the answer."""

    class config:
        weight = 1.0

    def score(self, prompts, completions, rows):
        return [float(len(text)) for text in completions]


def answer_logps(model, batch):
    """[answers, tokens] log probabilities of completions, from a plain pass over whole rows."""
    import torch

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    begin = batch["prompt_ids"].shape[1]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    logps = logits[:, begin - 1 : -1].log_softmax(dim=-1)
    return logps.gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)


def expected(trainer, model, batch, mask):
    """(loss, advantages) as in Ahmadian et al. 2024, section 3; answers are the mask's tokens.

    The answers of the batch are those of whole groups, which have a prompt in common.
    """
    import torch

    logps = answer_logps(model, batch)
    with torch.no_grad():
        reference = answer_logps(trainer.ref_model, batch)
    kl = ((logps.detach() - reference) * mask).sum(dim=1)
    own = batch["completion_mask"] * batch["tool_mask"]
    rewards = []
    for ids, is_own in zip(batch["completion_ids"], own, strict=True):
        said = tiny_tokenizer().decode(ids[is_own == 1]).split("<CALC_END>")[1]
        rewards.append(len(said.removesuffix("<|im_end|>")))
    paid = torch.tensor(rewards) - trainer.beta * kl
    prompts = [tuple(ids.tolist()) for ids in batch["prompt_ids"]]
    advantages = []
    for place, prompt in enumerate(prompts):
        others = [n for n, other in enumerate(prompts) if other == prompt and n != place]
        advantages.append(paid[place] - paid[others].mean())
    answers = (logps * mask).sum(dim=1)
    weights = (answers - answers.detach()).exp()
    loss = -(weights * torch.stack(advantages)).mean()
    return loss, torch.stack(advantages)


def compared(seen):
    """RLOO that calls the calculator and notes how far it is from ``expected``."""

    class Compared(calling(RLOO)):
        def trainer_class(self):
            class Trainer(super().trainer_class()):
                spoken = 0

                def sample(self, prompts):
                    """As scripted, with a call and an answer that differ within a group."""
                    scripted = super().sample(prompts)
                    end = words("<|im_end|>")
                    answers = []
                    for ids in scripted:
                        self.spoken += 1
                        is_answer = ids[-1:] == end
                        more = "a" * (self.spoken % 5) if is_answer else "+0" * (self.spoken % 3)
                        answers.append([*ids[:-1], *words(more), *ids[-1:]])
                    return answers

                def _compute_loss(self, model, batch):
                    import torch

                    loss = super()._compute_loss(model, batch)
                    weight = model.get_input_embeddings().weight
                    (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
                    every = batch["completion_mask"]
                    own = every * batch["tool_mask"]
                    for name, mask in (("own", own), ("every", every)):
                        wanted, advantages = expected(self, model, batch, mask)
                        (other,) = torch.autograd.grad(wanted, weight)
                        of_gradient = (gradient - other).abs().max().item()
                        of_advantages = (batch["advantages"] - advantages).abs().max().item()
                        seen.append((name, of_gradient, of_advantages))
                    return loss

            return Trainer

    return Compared


@pytest.mark.parametrize("engine", ["hf", "trl"])
def test_only_what_the_policy_wrote_is_weighed(tmp_path, inputs, monkeypatch, engine):
    monkeypatch.setattr(policy, "open_rewards", lambda *_: {"long": Long()})
    options = {**OPTIONS, "beta": 0.5, "learning_rate": 1e-2, "max_steps": 3, "warmup_steps": 0}
    config = RLOOConfig(**options, num_generations=4, engine=engine)
    seen = []
    perform(compared(seen), tmp_path / "rl", config, **inputs)
    own = [row[1:] for row in seen if row[0] == "own"]
    every = [row[1:] for row in seen if row[0] == "every"]
    assert len(own) == 3
    assert max(map(max, own)) < 2e-5, own
    # With the tokens of results it is another gradient, and another penalty once the policy moved.
    assert min(gradient for gradient, _ in every) > 1e-3
    assert min(advantage for _, advantage in every[1:]) > 1e-3


def test_without_tools_it_is_the_trainer_of_trl(tmp_path, inputs):
    class Plain(RLOO):
        def trainer_class(self):
            from trl import RLOOTrainer

            return safe_trainer(RLOOTrainer)

    config = RLOOConfig(**{**OPTIONS, "beta": 0.1, "max_steps": 3}, num_generations=4)
    without = {**inputs, "tools": None}
    ours, metrics = perform(RLOO, tmp_path / "ours", config, **without)
    plain, expected = perform(Plain, tmp_path / "plain", config, **without)
    assert metrics == expected
    name = "model.safetensors"
    assert (ours.path / name).read_bytes() == (plain.path / name).read_bytes()


def test_lengths_leave_results_out(tmp_path, inputs):
    config = RLOOConfig(**OPTIONS, num_generations=4)
    variant = calling(RLOO)
    _, metrics = perform(variant, tmp_path / "rl", config, **inputs)
    own = [
        (batch["completion_mask"] * batch["tool_mask"]).sum(dim=1).float().mean().item()
        for batch in variant.seen
    ]
    assert metrics["length_first"] == pytest.approx(own[0])
    assert metrics["length_last"] == pytest.approx(own[-1])


@pytest.mark.parametrize(
    "method, call",
    [
        ("_generate", "self._tokenize_prompts(prompts)"),
        ("_generate", "self._generate_single_turn(prompt_ids, images, multimodal_fields)"),
        ("_generate_and_score_completions", "self._generate(prompts)"),
        (
            "_generate_and_score_completions",
            "self._calculate_rewards(inputs, prompts, completions, completion_ids_list)",
        ),
        ("_compute_loss", "(per_token_logps * completion_mask).sum(1)"),
    ],
)
def test_trl_still_has_what_is_overridden(method, call):
    from trl import RLOOTrainer

    assert getattr(rloo_trainer(), method) is not getattr(RLOOTrainer, method)
    assert call in inspect.getsource(vars(RLOOTrainer)[method])
