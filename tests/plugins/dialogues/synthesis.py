"""What the tests of dialogues.synthesize share: a corpus, answers of a service, and its key."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from llmstages.data import tables
from llmstages.plugins.dialogues.synthesize import Synthesize, SynthesizeConfig
from tests.openai_service import service
from tests.tiny import perform, saved

KEY = "a-key-that-nobody-may-see-73"
TOWNS = [
    "Ansel",
    "Brome",
    "Cull",
    "Dorn",
    "Esk",
    "Farro",
    "Gant",
    "Hulm",
    "Ibbet",
    "Jorn",
    "Keld",
    "Lorne",
]
FAST = {"wait": 0.01, "timeout": 5.0, "model": "writer-1"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def corpus(folder, count=12):
    return saved(
        folder,
        "corpus",
        [
            {
                "id": f"d{i}",
                "url": f"http://x/{i}",
                "text": f"{town} lies by river number {i}. It has {i * 7} mills.",
            }
            for i, town in enumerate(TOWNS[:count])
        ],
    )


def town(asked):
    """The town a request is about."""
    return re.search(r"BEGIN TEXT-----\n(\w+)", asked)[1]


def talk(name, question="Which river does {} lie by, and how many mills has it?"):
    return {
        "messages": [
            {"role": "user", "content": question.format(name)},
            {"role": "assistant", "content": f"{name} lies by its river."},
        ]
    }


def good(asked, number=0):
    if "Judge this" in asked:
        return '{"helpful": 5, "truthful": 4, "harmless": 5}'
    return json.dumps(
        talk(town(asked), f"What is known about {town(asked)}, the place by {town(asked)} water?")
    )


def make(tmp_path, answer, name="dialogues", documents=12, **values):
    """Run the stage against a service: (artifact, metrics, server)."""
    with service(answer) as server:
        made, metrics = perform(
            Synthesize,
            tmp_path / name,
            SynthesizeConfig(endpoint=server.url, **{**FAST, **values}),
            corpus=corpus(tmp_path / f"{name}-corpus", documents),
        )
    return made, metrics, server


def adds_up(metrics, made):
    assert (
        metrics["asked"]
        == metrics["kept"]
        + metrics["failed"]
        + metrics["unparsable"]
        + metrics["duplicates"]
        + metrics["judged_out"]
    )
    assert metrics["asked"] == metrics["kept"] + sum(
        count for name, count in metrics.items() if name.startswith("dropped_")
    )
    assert (
        len(tables.load(made.path / "data")) == metrics["kept"]
        and len(tables.load(made.path / "dropped")) == metrics["dropped"]
    )


def rules(made):
    return Counter(tables.load(made.path / "dropped")["rule"])
