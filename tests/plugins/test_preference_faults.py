"""Faults of preference data and reward models that other tools had, and that nobody would see."""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter

import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.formats import InvalidRow, preference
from llmstages.data.splits import choose_tests
from llmstages.plugins.preferences.files import Files
from llmstages.plugins.reward import pairwise
from llmstages.plugins.rl import dpo
from llmstages.plugins.rl.rewards.reward_model import RewardModel, RewardModelConfig
from llmstages.testing.tiny import tiny_artifact
from llmstages.text.messages import message
from llmstages.text.render import render_answers
from llmstages.train.preference_pairs import split
from llmstages.train.scoring import scored_ids
from llmstages.train.trainer import load_tokenizer
from tests.real_templates import tokenizer_of
from tests.tiny import perform, saved, saved_model

GOOD, BAD = "The fox lives near the river.", "the dog ran far."
USER = {"role": "user", "content": "Why?"}
BECAUSE = {"role": "assistant", "content": "Because."}
NO = {"role": "assistant", "content": "No."}
SYSTEM = {"role": "system", "content": "Answer in French."}
TINY = {"batch_size": 8, "epochs": 1.0, "log_every": 1}


def pair(number: int, good: str = GOOD, bad: str = BAD, **more) -> dict:
    return {
        "prompt": [message("user", f"Where does the fox live? {number}")],
        "chosen": [message("assistant", good)],
        "rejected": [message("assistant", bad)],
        **more,
    }


def roles(made: dict) -> list[str]:
    return [turn["role"] for turn in made["prompt"]]


# axolotl#3824: what belongs to the prompt stands beside it.


def test_schemas_of_tools_stay_with_a_pair():
    tools = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
    made = preference(
        {
            "conversations": [{"from": "human", "value": "Weather in Rome?"}],
            "tools": tools,
            "chosen": {
                "from": "function_call",
                "value": '{"name": "weather", "arguments": {"city": "Rome"}}',
            },
            "rejected": {"from": "gpt", "value": "Sunny, surely."},
        }
    )
    assert json.loads(made["tools"]) == json.loads(tools)


def test_earlier_exchanges_of_alpaca_pairs_stay():
    made = preference(
        {
            "instruction": "And its capital?",
            "history": [["Name a country.", "Italy."]],
            "chosen": "Rome.",
            "rejected": "Milan.",
        }
    )
    assert [turn["content"] for turn in made["prompt"]] == [
        "Name a country.",
        "Italy.",
        "And its capital?",
    ]


# ms-swift#9611: the system turn on one side only.


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Answer in French.", "chosen": [USER, BECAUSE], "rejected": [USER, NO]},
        {"prompt": [SYSTEM, USER], "chosen": [USER, BECAUSE], "rejected": [USER, NO]},
        {
            "system": "Answer in French.",
            "prompt": "Why?",
            "chosen": [USER, BECAUSE],
            "rejected": "No.",
        },
        {"prompt": "Why?", "chosen": [SYSTEM, USER, BECAUSE], "rejected": [SYSTEM, USER, NO]},
    ],
)
def test_a_system_turn_is_on_both_sides(row):
    left_out: Counter[str] = Counter()
    assert roles(preference(row, left_out)) == ["system", "user"]
    assert not left_out


def test_a_system_turn_on_one_side_is_refused_with_its_reason():
    with pytest.raises(InvalidRow, match="different system turns"):
        preference({"chosen": [SYSTEM, USER, BECAUSE], "rejected": [USER, NO]})


def test_a_prompt_that_is_not_the_conversations_is_counted():
    left_out: Counter[str] = Counter()
    preference({"prompt": "Who?", "chosen": [USER, BECAUSE], "rejected": [USER, NO]}, left_out)
    assert left_out == {"prompts that differ from the conversation": 2}


def test_a_prompt_of_hh_may_end_where_the_assistant_speaks():
    row = {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " Because.", "rejected": " No."}
    assert roles(preference(row)) == ["user"]


# trl#5924: margins.


@pytest.mark.parametrize(
    ("scores", "rule"), [((5, 5), "tie"), ((3, 5), "order"), ((5, 3), None), ((5, None), None)]
)
def test_scores_of_a_row_must_say_the_same(scores, rule):
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    row |= {"score_chosen": scores[0], "score_rejected": scores[1]}
    if rule is None:
        preference(row)
        return
    with pytest.raises(InvalidRow) as error:
        preference(row)
    assert error.value.rule == rule


def test_margins_change_what_a_reward_model_learns(tmp_path):
    weights = set()
    for margin in (0.0, 5.0):
        rows = [pair(number, margin=margin) for number in range(16)]
        made, _ = perform(
            pairwise.Pairwise,
            tmp_path / f"reward{margin}",
            pairwise.PairwiseConfig(**TINY),
            model=saved_model(tmp_path / f"model{margin}"),
            preferences=saved(tmp_path / f"pairs{margin}", "preferences", rows),
        )
        weights.add((made.path / "model.safetensors").read_bytes())
        assert any("have a margin" in line for line in perform.said)
    assert len(weights) == 2


# OpenRLHF#1089: what is measured on is not trained on.


def test_marks_of_test_pairs_and_kinds_of_a_file_are_honored(tmp_path):
    lines = [
        {
            "prompt": f"Q{number}?",
            "chosen": f"a{number}",
            "rejected": f"b{number}",
            "split": "test" if number >= 6 else "train",
            "kind": f"k{number % 2}",
        }
        for number in range(8)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made, _ = perform(Files, tmp_path / "out", Files.Config(path=str(path)))
    train, test = split(list(tables.load(made.path / "data")), 0.5)
    assert [row["prompt"][0]["content"] for row in test] == ["Q6?", "Q7?"]
    assert len(train) == 6 and test[0]["kind"] == "k0"


def test_no_share_is_no_test_pair_and_a_large_prompt_is_no_small_share():
    assert choose_tests(["a", "b", "c"], 0.0) == [False] * 3
    for names in (["p"] * 8 + ["q", "r"], ["q", "r"] + ["z"] * 8, ["x"] * 8 + ["y1", "y2"]):
        assert sum(choose_tests(names, 0.1)) == 1


# OpenRLHF#1336: a share does not depend on batches.


def test_the_accuracy_of_dpo_counts_every_pair_once(tmp_path):
    rows = [pair(number, split="train") for number in range(32)]
    rows += [pair(100 + number, split="test") for number in range(8)]
    rows += [pair(200, BAD, GOOD, split="test")]
    _, metrics = perform(
        dpo.DPO,
        tmp_path / "rl",
        dpo.DPOConfig(learning_rate=2e-3, batch_size=8, epochs=3.0, warmup_steps=2, log_every=1),
        policy=saved_model(tmp_path / "policy"),
        preferences=saved(tmp_path / "pairs", "preferences", rows),
    )
    assert metrics["test_accuracy"] == pytest.approx(8 / 9)


# trl#1035, torchtune#996: options that would have no effect.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 0.3}, "label_smoothing=0.3 has no effect with loss=sigmoid"),
        ({"label_smoothing": 0.3, "loss": "ipo"}, "no effect with loss=ipo"),
        ({"loss": "robust"}, "needs rl.label_smoothing"),
        ({"lora_r": 4, "lora_dropout": 0.5}, "lora_dropout"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(StageError, match=message):
        perform(
            dpo.DPO,
            tmp_path / "rl",
            dpo.DPOConfig(**options),
            policy=saved_model(tmp_path / "policy"),
            preferences=saved(tmp_path / "pairs", "preferences", [pair(n) for n in range(8)]),
        )


def test_the_dropout_of_a_reward_models_adapters_acts(tmp_path):
    weights = set()
    for dropout in (0.0, 0.5):
        config = dc.replace(pairwise.PairwiseConfig(**TINY), lora_r=4, lora_dropout=dropout)
        made, _ = perform(
            pairwise.Pairwise,
            tmp_path / f"reward{dropout}",
            config,
            model=saved_model(tmp_path / f"model{dropout}"),
            preferences=saved(
                tmp_path / f"pairs{dropout}", "preferences", [pair(n) for n in range(16)]
            ),
        )
        weights.add((made.path / "model.safetensors").read_bytes())
    assert len(weights) == 2


# trl#368, trl#937: reward models of others.


def opened(artifact) -> RewardModel:
    judge = RewardModel(RewardModelConfig())
    judge.open(artifact)
    return judge


def test_a_language_model_is_no_judge(tmp_path):
    with pytest.raises(StageError, match="no reward model.*CausalLM"):
        opened(saved_model(tmp_path / "causal"))


def test_a_reward_model_without_its_head_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    artifact = tiny_artifact("reward_model", tmp_path / "judge")
    weights = load_file(artifact.path / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, artifact.path / "model.safetensors", {"format": "pt"})
    with pytest.raises(StageError, match=r"lacks 1 of the weights.*score\.weight"):
        opened(artifact)


def test_a_score_does_not_depend_on_the_batch(tmp_path):
    artifact = tiny_artifact("reward_model", tmp_path / "judge")
    tokenizer = load_tokenizer(artifact.path)
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.save_pretrained(artifact.path)  # config.json keeps <|pad|>
    judge = opened(artifact)
    asked = pair(0)["prompt"]
    alone = judge.score([asked], ["no"], {})[0]
    together = judge.score([asked, asked], ["no", GOOD * 3], {})[0]
    assert alone == pytest.approx(together, abs=1e-5)


def test_a_judge_that_pads_with_the_end_of_a_turn_is_refused(tmp_path):
    artifact = tiny_artifact("reward_model", tmp_path / "judge")
    tokenizer = load_tokenizer(artifact.path)
    config = json.loads((artifact.path / "config.json").read_text())
    config["pad_token_id"] = tokenizer.convert_tokens_to_ids("<|im_end|>")
    (artifact.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match="pads with '<.im_end.>'"):
        opened(artifact)


# trl#1702: the judge sees what it was trained with.


def test_a_judge_sees_the_tokens_of_its_training_also_after_several_turns(tmp_path):
    tokenizer = tokenizer_of("qwen3")
    dialogue = [
        message("user", "Hi"),
        message("assistant", "Hello."),
        message("user", "Where does the fox live?"),
        message("assistant", GOOD),
    ]
    trained = scored_ids(render_answers(tokenizer, [dialogue])[0], tokenizer)
    seen: list[list[int]] = []

    class Model:
        device = "cpu"

        def eval(self): ...

        def __call__(self, input_ids, **_):
            import torch

            seen.extend(input_ids.tolist())
            return type("Output", (), {"logits": torch.zeros(len(input_ids), 1)})

    judge = RewardModel(RewardModelConfig())
    judge.model, judge.tokenizer = Model(), tokenizer
    judge.score([dialogue[:-1]], [GOOD], {})
    assert seen == [trained]


# EditReward#14, ms-swift#1423: pairs that say both, and pairs that share an answer.


def dpo_metrics(tmp_path, rows) -> dict:
    _, metrics = perform(
        dpo.DPO,
        tmp_path / "rl",
        dpo.DPOConfig(**TINY),
        policy=saved_model(tmp_path / "policy"),
        preferences=saved(tmp_path / "pairs", "preferences", rows),
    )
    return metrics


def test_pairs_that_rank_both_ways_are_dropped_and_counted(tmp_path):
    dpo_metrics(tmp_path, [*(pair(number) for number in range(8)), pair(0, BAD, GOOD)])
    assert any("2 of 9 pairs dropped, which rank the same two" in line for line in perform.said)


def test_one_chosen_answer_may_stand_against_several(tmp_path):
    rows = [pair(n, bad=f"{BAD} {other}") for n in range(20) for other in ("a", "b", "c")]
    metrics = dpo_metrics(tmp_path, rows)
    assert metrics["pairs"] + metrics["test_pairs"] == len(rows)
