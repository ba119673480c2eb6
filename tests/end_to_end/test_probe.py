"""recipe=probe: somebody's model and somebody's text: what it knows, taught and measured."""

from __future__ import annotations

import json

from tests.end_to_end.chain import llmstages
from tests.plugins.problems.test_passages import FACTS
from tests.tiny import saved_model

WORDS = (
    "recipe=probe",
    "model.path=base",
    "pages.path=facts.txt",
    "problems.passage_words=10",
    "problems.test_fraction=0.5",
    "problems.threshold_fraction=0",
    "knowledge.num_generations=2",
    "knowledge.max_new_tokens=4",
    "evaluate.evaluators.answers.max_new_tokens=4",
    "sft.epochs=1",
    "problems.wording='{question}'",  # short: the tiny model has a context of 128 tokens
    "sft.max_length=128",
)


def test_a_model_and_a_text_become_a_report(tmp_path):
    saved_model(tmp_path / "base", hidden=16)
    (tmp_path / "facts.txt").write_text(" ".join(FACTS))
    done = llmstages("run", "--json", *WORDS, folder=tmp_path)
    metrics = {name: step["metrics"] for name, step in done.json["steps"].items()}
    assert metrics["problems"]["probe"] == metrics["problems"]["test"] == 4
    # A random model knows nothing, so it is taught one refusal for no known answer.
    assert metrics["knowledge"]["known"] == 0 and metrics["knowledge"]["refusals"] == 1
    assert metrics["evaluate"]["passages/all questions/model/wrong_ratio"] == 1
    assert metrics["evaluate"]["passages/all questions/sft/n"] == 4
    probed = (tmp_path / "runs/probe/knowledge/probe.jsonl").read_text().splitlines()
    assert {json.loads(line)["passage"] for line in probed} <= set(FACTS)
    page = (tmp_path / "runs/probe/report/index.html").read_text()
    assert "knowledge: calibration" in page and "All answers" in page
