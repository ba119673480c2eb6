"""Overrides replace each other by what they set, whatever signs they carry."""

import pytest

from llmstages.pipeline.overrides import command, key_of, merge, value_of


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=1", "seed"),
        ("+filters@corpus.filters.c4=c4", "filters@corpus.filters.c4"),
        ("++steps.rl.policy=sft", "steps.rl.policy"),
        ("~corpus.filters.pii", "corpus.filters.pii"),
        ("~rl=grpo", "rl"),
        ("pages.path=a=b", "pages.path"),
    ],
)
def test_the_key_is_what_an_override_sets(override, key):
    assert key_of(override) == key


def test_a_later_override_replaces_an_earlier_one_of_the_same_key():
    base = ["recipe=real", "only=sft", "+rl@second=dpo", "sft.epochs=2"]
    assert merge(base, "only=rl", "rl@second=grpo") == [
        "recipe=real",
        "sft.epochs=2",
        "only=rl",
        "rl@second=grpo",
    ]
    assert merge(base) == base


def test_a_command_can_be_copied_and_sets_no_key_twice():
    overrides = ["recipe=real", "only=sft", "steps.sft.evaluations=[a, b]"]
    assert command("run", overrides, "only=dialogues") == (
        "llmstages run recipe=real 'steps.sft.evaluations=[a, b]' only=dialogues"
    )
    assert command("chat") == "llmstages chat"


def test_the_last_value_of_a_key_counts():
    assert value_of(["recipe=a", "+recipe=b"], "recipe") == "b"
    assert value_of(["recipe=a"], "name") == ""
