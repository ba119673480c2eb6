"""Preferences and RL with chat templates of other people: what is trained is what is said."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.reward import pairwise
from llmstages.plugins.rl import dpo
from llmstages.plugins.rl.grpo import GRPO, GRPOConfig
from llmstages.plugins.rl.rejection import Rejection, RejectionConfig
from llmstages.plugins.rl.rewards.reward_model import RewardModel, RewardModelConfig
from llmstages.plugins.rl.safe_trainer import stop_at_end_of_turn
from llmstages.text import chat_format
from llmstages.text.messages import message
from llmstages.text.render import render
from tests.real_templates import KNOWN, SMOLLM2, end_of_turn, saved_real_model, tokenizer_of
from tests.tiny import perform, saved

each_template = pytest.mark.parametrize("name", KNOWN)
GOOD, BAD = "The fox lives near the river.", "the dog ran far."


def pair(i):
    return {
        "prompt": [message("user", f"Where does the fox live? {i}")],
        "chosen": [message("assistant", GOOD)],
        "rejected": [message("assistant", BAD)],
    }


def pairs(tmp_path, rows):
    return saved(tmp_path / "pairs", "preferences", rows)


def prepared(tmp_path, name, rows):
    said = []
    inputs = {
        "policy": saved_real_model(tmp_path / "policy", name),
        "preferences": pairs(tmp_path, rows),
    }
    ctx = Context("rl", tmp_path, tmp_path, inputs, say=said.append)
    return dpo.DPO().prepare(dpo.DPOConfig(test_fraction=0.0), ctx), said


@each_template
def test_dpo_trains_the_answer_up_to_the_end_of_turn(tmp_path, name):
    made, said = prepared(tmp_path, name, [pair(i) for i in range(6)])
    assert len(made.train) == 6 and not said  # no share is kept for measuring
    tokenizer = tokenizer_of(name)
    for row in dpo.pairs_dataset(made.train, made.tokenizer):
        for side, text in (("chosen", GOOD), ("rejected", BAD)):
            ids = row[f"{side}_ids"]
            assert ids[-1] == end_of_turn(name)
            assert ids.count(end_of_turn(name)) == 1
            # Qwen3 writes an empty thought before each answer, which is said as well.
            assert chat_format.decode(tokenizer, ids).endswith(text)


@each_template
def test_a_completion_is_what_generation_would_have_said(tmp_path, name):
    """Prompt and completion together are the ids that inference sees, no more and no less."""
    made, _ = prepared(tmp_path, name, [pair(i) for i in range(6)])
    tokenizer = tokenizer_of(name)
    for source, row in zip(made.train, dpo.pairs_dataset(made.train, made.tokenizer), strict=True):
        prompt = chat_format.prompt_ids(tokenizer, [source["prompt"]])[0]
        whole = row["prompt_ids"] + row["chosen_ids"]
        assert whole[: len(prompt)] == prompt
        turn, ended = chat_format.parse_reply(tokenizer, whole[len(prompt) :])
        assert ended and str(turn["content"]).endswith(GOOD)


def test_dpo_names_why_it_drops_pairs(tmp_path):
    more = [message("assistant", "a"), message("user", "b"), message("assistant", "c")]
    made, said = prepared(
        tmp_path,
        "qwen2_5",
        [
            *(pair(i) for i in range(6)),
            pair(6) | {"chosen": more},
            pair(7) | {"rejected": [message("assistant", "a"), message("assistant", "b")]},
        ],
    )
    assert len(made.train) == 6
    assert said == [
        "rl: 1 pairs dropped, whose answers hold turns of a user or a tool",
        "rl: 1 pairs dropped, whose answers are several turns of the assistant",
    ]


def test_dpo_without_a_usable_pair_says_why(tmp_path):
    turns = [message("assistant", "a"), message("user", "b"), message("assistant", "c")]
    rows = [pair(i) | {"chosen": turns} for i in range(4)]
    with pytest.raises(StageError, match="can use no pair of pairs: whose answers hold turns"):
        prepared(tmp_path, "qwen2_5", rows)


@pytest.fixture
def unchecked(monkeypatch):
    """Without the checks before training, which have tests of their own."""
    monkeypatch.setattr("llmstages.train.checks.enforce", lambda *_: None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [SMOLLM2, "gemma3"])
def test_dpo_trains_with_a_template_that_writes_after_the_turn(tmp_path, name):
    _, metrics = perform(
        dpo.DPO,
        tmp_path / "rl",
        dpo.DPOConfig(learning_rate=2e-3, batch_size=8, epochs=3.0, lora_r=4),
        policy=saved_real_model(tmp_path / "policy", name),
        preferences=pairs(tmp_path, [pair(i) for i in range(24)]),
    )
    assert metrics["test_accuracy"] == 1.0 and metrics["margin_last"] > metrics["margin_first"]
    assert list(metrics)[:2] == ["test_margin", "test_accuracy"]


@each_template
def test_the_reward_model_scores_the_end_of_turn(tmp_path, name):
    """In training and at use, whatever the template writes after it and whatever token pads."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from llmstages.train import scoring

    source = saved_real_model(tmp_path / "model", name)
    tokenizer = tokenizer_of(name)
    model = AutoModelForSequenceClassification.from_pretrained(source.path, num_labels=1)
    dialogues = [[*pair(0)["prompt"], message("assistant", text)] for text in (GOOD, "no")]
    rows = [scoring.scored_ids(row, tokenizer) for row in render(tokenizer, dialogues)]
    assert [row[-1] for row in rows] == [end_of_turn(name)] * 2

    import copy

    padded = copy.deepcopy(tokenizer)
    scoring.set_scoring_pad(model, padded, rows)
    with torch.no_grad():
        states = [model.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        expected = [float(model.score(state)) for state in states]
    assert scoring.scores(model, padded, rows) == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_a_reward_model_that_pads_with_the_end_of_turn_is_as_good_at_use(tmp_path):
    rows = [pair(i) for i in range(24)]
    made, metrics = perform(
        pairwise.Pairwise,
        tmp_path / "reward",
        pairwise.PairwiseConfig(learning_rate=3e-3, batch_size=8, epochs=6.0, lora_r=4),
        model=saved_real_model(tmp_path / "model", SMOLLM2),
        preferences=pairs(tmp_path, rows),
    )
    assert metrics["accuracy"] == 1.0 and next(iter(metrics)) == "accuracy"
    judge = RewardModel(RewardModelConfig())
    judge.open(made)
    good, bad = judge.score([rows[0]["prompt"]] * 2, [GOOD, BAD], {})
    assert good > bad
    alone = judge.score([rows[0]["prompt"]], [GOOD], {})
    assert alone == pytest.approx([good], abs=1e-4), "padding changes nothing"


PROBLEMS = [
    {"prompt": [message("user", f"{i}+{i}=?")], "answer": str(2 * i), "meta": "{}"}
    for i in range(8)
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["llama3", "gemma3", SMOLLM2])
def test_grpo_stops_at_the_end_of_turn_of_the_template(tmp_path, name):
    made = []

    class Spy(GRPO):
        def trainer_class(self):
            class Trainer(super().trainer_class()):
                def __init__(self, *args, **kwargs):
                    super().__init__(*args, **kwargs)
                    made.append(self)

            return Trainer

    config = GRPOConfig(
        max_steps=1,
        batch_size=8,
        num_generations=4,
        max_completion_length=4,
        lora_r=2,
        rewards={"exact_answer": {"use": "exact_answer"}},
    )
    saved_policy = saved_real_model(tmp_path / "policy", name)
    artifact, _ = perform(
        Spy,
        tmp_path / "rl",
        config,
        policy=saved_policy,
        problems=saved(tmp_path / "problems", "problems", PROBLEMS),
        reward=None,
    )
    assert end_of_turn(name) in made[0].generation_config.eos_token_id
    from safetensors.torch import load_file

    before = load_file(saved_policy.path / "model.safetensors")
    assert set(load_file(artifact.path / "model.safetensors")) == set(before)


def test_a_config_that_knows_the_end_of_turn_stays_as_it_is(tmp_path):
    class Model:
        class generation_config:
            eos_token_id = 7

    stop_at_end_of_turn(Model, tokenizer_of("qwen2_5"))
    assert Model.generation_config.eos_token_id == 7, "it is the eos token of the tokenizer"
    stop_at_end_of_turn(Model, tokenizer_of("gemma3"))
    assert Model.generation_config.eos_token_id == [end_of_turn("gemma3"), 7]


def test_rejection_trains_adapters_and_saves_the_whole_model(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from llmstages.text import generate

    answers = {row["prompt"][0]["content"]: row["answer"] for row in PROBLEMS}

    def oracle(model, tokenizer, prompts, *_, **__):
        said = [answers[prompt[0]["content"]] for prompt in prompts]
        return [generate.Reply([message("assistant", text)], True) for text in said]

    monkeypatch.setattr(generate, "reply", oracle)
    source = saved_real_model(tmp_path / "policy", "qwen2_5")
    made, metrics = perform(
        Rejection,
        tmp_path / "rl",
        RejectionConfig(
            questions=8,
            num_generations=1,
            lora_r=2,
            rewards={"exact_answer": {"use": "exact_answer"}},
        ),
        policy=source,
        problems=saved(tmp_path / "problems", "problems", PROBLEMS),
        reward=None,
    )
    assert metrics["kept"] == 8 and metrics["updates"] > 0
    before, after = (load_file(folder.path / "model.safetensors") for folder in (source, made))
    assert set(before) == set(after)
    changed = [name for name in before if not (before[name] == after[name]).all()]
    assert changed and all("proj" in name for name in changed)
