"""recipe=real: local files of the formats people have, through every step to a report."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.chain import ROOT, command, llmstages
from tests.end_to_end.web import write_everything

SMALL = (
    "tokenizer.vocab_size=512",
    "pretrain.hidden_size=32",
    "pretrain.num_hidden_layers=2",
    "pretrain.num_attention_heads=2",
    "pretrain.intermediate_size=64",
    "pretrain.epochs=0.2",
    "pretrain.max_tokens=20000",
    "sft.epochs=0.3",
    "sft.replay=20",
    "sft_tools.epochs=0.3",
    "sft_tools.replay=20",
    "knowledge.limit=4",
    "knowledge.num_generations=2",
    "knowledge.max_new_tokens=8",
    "knowledge.known=0.9",
    "rl.max_steps=1",
    "rl.batch_size=8",
    "rl.num_generations=4",
    "rl.max_completion_length=8",
    "evaluate.limit=2",
    "evaluate.evaluators.answers.max_new_tokens=8",
)
DATA = ROOT.parent / "shared" / "data"
FILES = {
    "pages": "web/pages.warc.gz",
    "dialogues": "llamafactory/alpaca_en_demo.json",
    "preferences": "hh/pairs.jsonl",
    "problems": "gsm8k/train.jsonl",
}


def test_own_files_go_through_every_step_to_a_report(tmp_path):
    files = write_everything(tmp_path)
    paths = [str(files[slot]) for slot in ("pages", "dialogues", "preferences", "problems")]
    command([str(ROOT / "examples/own_files.sh"), *paths, *SMALL], tmp_path)
    metrics = {}
    for step in (path for path in (tmp_path / "runs/real").iterdir() if path.is_dir()):
        metrics[step.name] = json.loads((step / "record.json").read_text())["metrics"]
    assert len(metrics) == 16
    assert metrics["pages"]["documents"] == 60
    assert metrics["corpus"]["kept"] == 60
    assert metrics["dialogues"]["examples"] == 60
    assert metrics["preferences"]["examples"] == 28
    assert metrics["problems"]["examples"] == 40
    assert (tmp_path / "runs/real/report/index.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no folder with real data beside the repository")
def test_real_data_goes_through_every_step_to_a_report(tmp_path):
    overrides = [f"{slot}.path={DATA / name}" for slot, name in FILES.items()]
    done = llmstages("run", "--json", "recipe=real", *overrides, folder=tmp_path)
    assert (tmp_path / done.json["report"]).is_file()
    assert done.json["steps"]["pages"]["metrics"]["documents"] > 400
