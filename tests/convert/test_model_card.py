"""A card says what was recorded, in a form that the Hub accepts."""

from __future__ import annotations

import pytest

from llmstages.convert.model_card import CardFacts, Score, base_model, model_card


def record(step: str, stage: str, kind: str, **changes) -> dict:
    return {
        "step": step,
        "stage": stage,
        "kind": kind,
        "version": "3",
        "fingerprint": f"{step}-123",
        "config": {},
        "identity": {"config": {}},
        "inputs": {},
        "metrics": {},
        "seconds": 61.0,
        "processes": 1,
        "versions": {"torch": "2.13.0"},
        **changes,
    }


DATA = record(
    "dialogues",
    "dialogues.hub",
    "dialogues",
    config={"data_set": "tatsu-lab/alpaca", "split": "train"},
    metrics={"dialogues": 52002, "turns": 104004},
)
FILES = record(
    "pages",
    "pages.files",
    "documents",
    config={"path": "/home/ann/secret/x.warc"},
    metrics={"documents": 7},
)
SFT = record(
    "sft",
    "sft.chat",
    "model",
    inputs={"model": ["model"], "dialogues": ["dialogues"]},
    identity={"config": {"learning_rate": 2e-5, "lora_r": 16, "template_file": None}},
    metrics={"loss_last": 1.25},
)
HUB_MODEL = record("model", "model.hub", "model", config={"name": "org/base", "revision": "abc123"})
FACTS = CardFacts(
    name="my|model",
    record=SFT,
    lineage=[HUB_MODEL, DATA, FILES],
    checks=[
        {"id": "bos_count", "title": "BOS", "value": 1, "limit": 1, "passed": True},
        {
            "id": "ends",
            "title": "a | b",
            "value": 0.5,
            "limit": 0,
            "passed": False,
            "allowed": True,
        },
    ],
    scores=[Score("facts", "all", "right", 0.75)],
    parameters=134_515_008,
    dtype="bfloat16",
    chat=True,
)


def test_the_metadata_are_those_of_the_hub():
    from huggingface_hub import ModelCard

    card = ModelCard(model_card(FACTS))
    assert card.data.base_model == "org/base"
    assert card.data.datasets == ["tatsu-lab/alpaca"]
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert "sft" in card.data.tags
    assert card.data.license is None
    assert "# license: TODO" in model_card(FACTS)


@pytest.mark.parametrize(
    "line",
    [
        "134.5 M parameters, bfloat16, with a chat template.",
        "It was trained further from `hub:org/base@abc123`.",
        "| dialogues | dialogues.hub | data_set=tatsu-lab/alpaca split=train | dialogues 52002, "
        "turns 104004 |",
        "| learning_rate | 2e-05 |",
        "| lora_r | 16 |",
        "| loss_last | 1.25 |",
        "| bos_count | BOS | 1 | 1 | passed |",
        "| ends | a \\| b | 0.5 | 0 | **failed, allowed** |",
        "| facts | all | right | 0.75 |",
        "| sft | sft.chat 3 | sft-123 | model, dialogues |",
        "| dialogues | dialogues.hub 3 | dialogues-123 | - |",
        "**TODO: choose a license.** It has to fit the base model and the data above.",
    ],
)
def test_what_was_recorded_is_there(line):
    assert line in model_card(FACTS).splitlines()


def test_folders_of_a_machine_and_secrets_are_not_published(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "topsecret99")
    facts = CardFacts("x", record=SFT | {"metrics": {"note": "topsecret99"}}, lineage=[FILES])
    text = model_card(facts)
    assert "path=x.warc" in text
    assert "ann" not in text.replace("channel", "")
    assert "topsecret99" not in text


def test_a_license_takes_the_place_of_the_todo():
    from huggingface_hub import ModelCard

    text = model_card(CardFacts("x", record=SFT, license="apache-2.0"))
    assert ModelCard(text).data.license == "apache-2.0"
    assert "TODO" not in text


@pytest.mark.parametrize(
    "facts, expected",
    [
        (CardFacts("x"), ""),
        (CardFacts("x", record=SFT, lineage=[HUB_MODEL]), "org/base"),
        (CardFacts("x", record=SFT | {"inputs": {"model": ["hub:a/b@main"]}}), "a/b"),
        (CardFacts("x", record=SFT | {"inputs": {"model": ["/home/ann/m"]}}), ""),
        (CardFacts("x", record=SFT | {"inputs": {"dialogues": ["hub:a/b@main"]}}), ""),
        (CardFacts("x", adapter_of="a/b"), "a/b"),
        (CardFacts("x", adapter_of="/store/model-1"), ""),
    ],
)
def test_the_base_model_is_one_of_the_hub(facts, expected):
    assert base_model(facts) == expected


def test_a_model_from_scratch_says_so():
    base = record("pretrain", "pretrain.causal_lm", "model", inputs={"corpus": ["corpus"]})
    facts = CardFacts("x", record=SFT | {"inputs": {"model": ["pretrain"]}}, lineage=[base])
    text = model_card(facts)
    assert "None: it was trained from scratch by the step `pretrain`." in text
    assert "No evaluation step of the run measured this model." in text


def test_the_examples_of_use_run(tmp_path, capsys):
    """The code in the card, on a model in the folder."""
    from tests.convert.models import write_model

    folder = write_model(tmp_path / "model")
    for chat in (True, False):
        text = model_card(CardFacts("x", chat=chat))
        code = text.split("```python\n")[1].split("```")[0]
        exec(code.replace("FOLDER_OR_NAME", str(folder)).replace("=64", "=4"), {})
    assert capsys.readouterr().out


def test_an_adapter_needs_its_model():
    text = model_card(CardFacts("x", record=SFT, adapter_of="org/base", chat=True))
    assert "library_name: peft" in text
    assert "it needs the model `org/base`" in text
    assert "AutoPeftModelForCausalLM" in text
