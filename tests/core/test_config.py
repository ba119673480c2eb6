"""Values become a typed Config, or a message that names the key, the value and what is allowed."""

from __future__ import annotations

import dataclasses as dc

import pytest

from llmstages.core.config import allowed_range, build_config, describe_range
from llmstages.core.errors import StageError
from llmstages.core.stage import option


@dc.dataclass(frozen=True)
class Parent:
    rate: float = option(0.1, "a rate", gt=0, le=1)
    steps: int = option(10, "steps", ge=0, renamed_from="updates")
    shares: tuple[float, ...] = option((0.5, 0.5), "shares", ge=0, le=1)
    limit: float | None = option(None, "a limit, or none", lt=10)
    flag: bool = option(True, "a flag")


@dc.dataclass(frozen=True)
class Child(Parent):
    rate: float = option(0.2, "another default")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"rate": 0}, "x.rate is 0, but it must be > 0, <= 1"),
        ({"rate": 1.5}, "x.rate is 1.5, but it must be > 0, <= 1"),
        ({"rate": float("nan")}, "x.rate is nan, which is not a finite number"),
        ({"rate": float("inf")}, "x.rate is inf, which is not a finite number"),
        ({"steps": -3}, "x.steps is -3, but it must be >= 0"),
        ({"steps": True}, "x.steps is True, which is not of type int"),
        ({"steps": 1.5}, "x.steps is 1.5, which is not of type int"),
        ({"shares": [0.5, 2.0]}, "x.shares is 2, but it must be >= 0, <= 1"),
        ({"shares": [float("nan")]}, "x.shares is nan"),
        ({"limit": 10}, "x.limit is 10, but it must be < 10"),
        ({"updates": 3}, "x.updates was renamed to x.steps"),
        ({"stpes": 3}, "x has no key 'stpes'. Did you mean 'steps'?"),
    ],
)
@pytest.mark.parametrize("config", [Parent, Child])
def test_wrong_values_are_refused(config, values, words):
    with pytest.raises(StageError) as caught:
        build_config(config, values, "x")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"rate": 1}, {"steps": 0}, {"shares": [0, 1]}, {"limit": None}, {"flag": False}]
)
def test_values_at_the_edge_are_taken(values):
    assert build_config(Parent, values, "x")


def test_a_subclass_that_overrides_a_default_keeps_the_range():
    assert allowed_range(Child, "rate") == {"gt": 0, "le": 1}
    assert describe_range(allowed_range(Child, "rate")) == "> 0, <= 1"
    assert describe_range(allowed_range(Child, "flag")) == ""


def test_a_value_whose_package_is_missing_is_refused_with_what_to_install():
    needs = {"fast": ("nowhere_to_be_found", "llmstages[fast]"), "slow": ("json", "json")}

    @dc.dataclass(frozen=True)
    class Config:
        how: str = option("plain", "how", needs=needs)
        many: list[str] = option(help="several", factory=list, needs=needs)

    assert build_config(Config, {"how": "slow", "many": ["slow", "other"]}, "x").how == "slow"
    for values in ({"how": "fast"}, {"many": ["slow", "fast"]}):
        with pytest.raises(StageError, match=r"=fast needs nowhere_to_be_found.*llmstages\[fast\]"):
            build_config(Config, values, "x")


def test_trackers_are_looked_for_by_plan(tmp_path, monkeypatch):
    import importlib.util

    from llmstages.pipeline import prepare

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name)
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"pretrain.trackers=wandb .*llmstages\[trackers\]"):
        prepare.prepare(["recipe=smoke", "only=pretrain", "pretrain.trackers=[wandb]"])
