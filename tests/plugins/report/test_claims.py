"""The grammar of claims: values from metrics, targets, and messages about missing metrics."""

from __future__ import annotations

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.plugins.report import claims
from llmstages.plugins.report.html import HTML

METRICS = {
    "rl": {"length_first": 10.0, "length_last": 14.5, "kl": None, "flag": True},
    "evaluate": {
        "sums open/2 digits/rl/sampled": 0.75,
        "sums open/2 digits/sft/sampled": 0.5,
        "few-shot/0 examples/base/right": 0.1,
    },
}


def claim(value, target=">= 0"):
    return claims.measure(
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
    measured = claim(value)
    assert measured.value == pytest.approx(expected)
    assert measured.met
    assert not measured.missing


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
    measured = claim("rl:length_last - rl:lenght_first", "<= 100")
    assert measured.value is None
    assert not measured.met
    assert measured.missing == ("rl:lenght_first (Did you mean 'length_first'?)",)
    assert claim("ppo:reward").missing == ("ppo:reward (no step ppo in this run)",)
    assert claim("rl:kl").value is None, "a metric that was not finite is recorded as null"
    assert claim("rl:flag").value is None
    assert measured.row() == {
        "name": "a claim",
        "value": None,
        "target": "<= 100",
        "met": False,
        "certain": False,
        "chance": None,
        "interval": None,
        "n": None,
        "about": "why",
    }


@pytest.mark.parametrize(
    ("low", "high", "target", "certain"),
    [
        (0.7, 0.8, ">= 0.6", True),
        (0.55, 0.8, ">= 0.6", False),
        (0.7, 0.8, "<= 0.9", True),
        (0.7, 0.8, "<= 0.78", False),
        (0.6, 0.8, ">= 0.6", True),
        (0.6, 0.8, "> 0.6", False),
        (0.7, 0.8, ">= 0.9", False),
    ],
)
def test_a_claim_is_certain_where_its_whole_interval_meets_the_target(low, high, target, certain):
    metrics = {"e": {"t/g/m/right": 0.75, "t/g/m/right_low": low, "t/g/m/right_high": high}}
    spec = {"value": "e:t/g/m/right", "target": target}
    assert claims.measure("c", spec, metrics, targeted=True).certain is certain


def test_a_point_estimate_is_never_certain():
    assert claim("rl:length_last", ">= 1").met and not claim("rl:length_last", ">= 1").certain


def test_a_sum_of_shares_has_the_interval_of_newcombe():
    # The example of Newcombe 1998: 56/70 - 48/80, method 10.
    from llmstages.data.intervals import wilson

    of_step = {}
    for name, right, number in (("a/x", 56, 70), ("b/x", 48, 80)):
        low, high = wilson(right, number)
        share = f"{name}/right"
        of_step |= {share: right / number, f"{share}_low": low, f"{share}_high": high}
        of_step[f"{name}/n"] = number
    measured = claims.measure(
        "a claim",
        {"value": "e:a/x/right - e:b/x/right", "target": ">= 0.1"},
        {"e": of_step},
        targeted=True,
    )
    assert measured.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert measured.number == 70
    assert measured.row()["n"] == 70


def test_a_claim_about_what_has_no_interval_has_none():
    measured = claim("rl:length_last")
    assert measured.interval is None
    assert measured.number is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"value": "length", "target": ">= 1"}, ["report.claims.x", "STEP:METRIC"]),
        ({"value": "rl:a - ", "target": ">= 1", "abuot": ""}, ["'abuot'", "Did you mean 'about'"]),
        ({"value": "rl:a", "target": "about 3"}, ["'about 3'", ">= 0.9"]),
        ({"value": "rl:a"}, ["target"]),
        ("rl:a", ["has no value"]),
    ],
)
def test_mistakes_are_named(spec, words):
    with pytest.raises(StageError) as error:
        claims.measure("x", spec, METRICS, targeted=True)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("group", ["claims", "numbers"])
def test_mistakes_are_found_before_the_run(group):
    with pytest.raises(StageError, match=rf"report\.{group}\.x: 'length'"):
        build_config(HTML.Config, {group: {"x": {"value": "length", "target": ">= 1"}}}, "report")


def test_numbers_need_no_target_and_order_is_kept():
    specs = {"b": {"value": "rl:length_last"}, "a": {"value": "rl:gone"}}
    numbers = claims.measure_all(specs, METRICS, targeted=False, group="numbers")
    assert [(number.name, number.value) for number in numbers] == [("b", 14.5), ("a", None)]


@pytest.mark.parametrize("recipe", ["story", "smoke"])
def test_claims_and_chapters_of_a_recipe_name_its_steps(recipe):
    from llmstages.pipeline.compose import compose

    composed = compose([f"recipe={recipe}"])
    report = composed.slots["report"]
    for name, claim in (report["claims"] | report["numbers"]).items():
        for term in claims.parse_formula(claim["value"], name):
            assert term.step in composed.steps, name
    for id, chapter in report["chapters"].items():
        assert set(chapter.get("steps", ())) <= set(composed.steps), id


def test_the_story_makes_claims_in_chapters():
    from llmstages.pipeline.compose import compose

    report = compose([]).slots["report"]
    assert len(report["claims"]) >= 14
    assert len(report["chapters"]) >= 10
