"""The grammar of claims: values from metrics, targets, and what is said of what is missing."""

from __future__ import annotations

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.report import claims

METRICS = {
    "rl": {"length_first": 10.0, "length_last": 14.5, "kl": None, "flag": True},
    "evaluate": {
        "sums open/2 digits/rl/sampled": 0.75,
        "sums open/2 digits/sft/sampled": 0.5,
        "few-shot/0 examples/base/right": 0.1,
    },
}


def claim(value, target=">= 0"):
    return claims.read(
        "a claim", {"value": value, "target": target, "about": "why"}, METRICS, targeted=True
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("rl:length_last", 14.5),
        ("rl:length_last - rl:length_first", 4.5),
        ("evaluate:sums open/2 digits/rl/sampled - evaluate:sums open/2 digits/sft/sampled", 0.25),
        ("evaluate:few-shot/0 examples/base/right + rl:length_first - rl:length_first", 0.1),
    ],
)
def test_values(value, expected):
    found = claim(value)
    assert found.value == pytest.approx(expected) and found.met and not found.missing


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (">= 4.5", True),
        ("> 4.5", False),
        ("<= 4.5", True),
        ("<5", True),
        ("== 4.5", True),
        (">= 1e1", False),
        ("<= -.5", False),
    ],
)
def test_targets(target, met):
    assert claim("rl:length_last - rl:length_first", target).met is met


def test_a_missing_term_is_named_and_the_claim_missed():
    found = claim("rl:length_last - rl:lenght_first", "<= 100")
    assert (
        found.value is None
        and not found.met
        and found.missing == ("rl:lenght_first (Did you mean 'length_first'?)",)
    )
    assert claim("ppo:reward").missing == ("ppo:reward (no step ppo in this run)",)
    assert claim("rl:kl").value is None, "a metric that was not finite is recorded as null"
    assert claim("rl:flag").value is None
    assert found.row() == {
        "name": "a claim",
        "value": None,
        "target": "<= 100",
        "met": False,
        "about": "why",
    }


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"value": "length", "target": ">= 1"}, ["report.claims.x", "STEP:METRIC"]),
        ({"value": "rl:a - ", "target": ">= 1", "abuot": ""}, ["'abuot'", "Did you mean 'about'"]),
        ({"value": "rl:a", "target": "about 3"}, ["'about 3'", ">= 0.9"]),
        ({"value": "rl:a"}, ["target"]),
        ("rl:a", ["says no value"]),
    ],
)
def test_mistakes_are_told(spec, words):
    with pytest.raises(StageError) as told:
        claims.read("x", spec, METRICS, targeted=True)
    assert all(word in str(told.value) for word in words), told.value


def test_numbers_need_no_target_and_order_is_kept():
    found = claims.read_all(
        {"b": {"value": "rl:length_last"}, "a": {"value": "rl:gone"}},
        METRICS,
        targeted=False,
        group="numbers",
    )
    assert [(n.name, n.value) for n in found] == [("b", 14.5), ("a", None)]


def test_the_story_claims_speak_of_its_steps():
    from llmstages.pipeline.compose import compose

    story = compose([])
    claims = story.slots["report"]["claims"] | story.slots["report"]["numbers"]
    assert len(story.slots["report"]["claims"]) >= 14
    for name, claim in claims.items():
        terms = claim["value"].replace(" - ", "\n").replace(" + ", "\n").splitlines()
        assert {term.split(":")[0] for term in terms} <= set(story.steps), name
