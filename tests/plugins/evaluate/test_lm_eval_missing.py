"""evaluate=lm_eval without its package: ``plan`` says what to install."""

from __future__ import annotations

import importlib.util

import pytest

from llmstages.core.errors import StageError
from llmstages.plugins.evaluate.lm_eval import LMEval, LMEvalConfig


def test_plan_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec

    def without_harness(name: str, package: str | None = None) -> object:
        return None if name == "lm_eval" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_harness)
    with pytest.raises(StageError, match=r'base_eval needs lm-eval: pip install "llmstages\[lm_e'):
        LMEval().validate(LMEvalConfig(tasks=["arc_easy"]), "base_eval")
