"""Names to classes: clashes, typos and broken packages end as messages that say what to do."""

import pytest

from llmstages.core import registry
from llmstages.core.errors import StageError


def test_two_packages_with_one_name_are_refused_and_both_named(install):
    install("alpha", "[llmstages.stages]\nrl.mine = alpha:One\n")
    install("beta", "[llmstages.stages]\nrl.mine = beta:Two\n")
    with pytest.raises(StageError, match="two packages") as caught:
        registry.entries("stages")
    assert "alpha 1.0" in str(caught.value) and "beta 1.0" in str(caught.value)


def test_a_typo_names_what_is_near_and_what_is_registered_by_whom(toys):
    with pytest.raises(StageError, match="Did you mean 'toymodel.plain'") as caught:
        registry.load_stage("toymodel.plian")
    assert "toymodel.distilled  (toys 0.1)" in str(caught.value)


def test_a_package_that_fails_to_import_harms_only_those_who_use_it(install, toys):
    install(
        "broken",
        "[llmstages.stages]\nrl.broken = broken:Stage\n",
        "raise RuntimeError('no such library')",
    )
    assert registry.load_stage("toymodel.plain")
    with pytest.raises(StageError, match="broken 1.0.*RuntimeError: no such library"):
        registry.load_stage("rl.broken")


def test_a_class_that_does_not_keep_the_contract_is_told_what_it_lacks(install):
    install(
        "poor", "[llmstages.stages]\nrl.poor = poor:Stage\n", "class Stage:\n    version = '1'\n"
    )
    with pytest.raises(StageError, match="lacks Config, inputs, output, run"):
        registry.load_stage("rl.poor")


def test_parts_are_made_from_a_spec(toys):
    part = registry.load_component("filters", {"use": "toy_short", "most": 1})
    assert part.judge([0, 1, 2]) == [None, None, "drop"] and part.config.verbose is False
    with pytest.raises(
        StageError, match="filters.toy_short has no key 'mots'. Did you mean 'most'"
    ):
        registry.load_component("filters", {"use": "toy_short", "mots": 1})
    with pytest.raises(StageError, match="does not say what to use"):
        registry.load_component("filters", {"most": 1})


def test_slots_and_entries_import_nothing(toys):
    import sys

    sys.modules.pop("toys", None)
    assert "toymodel" in registry.slots() and "toymodel.plain" in registry.entries("stages")
    assert "toys" not in sys.modules
