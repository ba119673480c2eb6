"""Tasks of lm-evaluation-harness give the numbers of its own class for Hugging Face models.

They need the extra lm_eval. The comparison with SmolLM2-135M-Instruct is slow, and needs its folder
in LLMSTAGES_SMOLLM2; the same comparison with a random model runs always.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables
from llmstages.plugins.evaluate.lm_eval import LMEval, LMEvalConfig
from llmstages.testing.tiny import tiny_artifact
from tests.tiny import perform

pytest.importorskip("lm_eval")
CAPITALS = (
    *(("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Germany", "Berlin")),
    *(("Japan", "Tokyo"), ("Egypt", "Cairo"), ("Russia", "Moscow"), ("Greece", "Athens")),
    *(("Norway", "Oslo"), ("Sweden", "Stockholm"), ("Peru", "Lima"), ("Cuba", "Havana")),
    *(("Austria", "Vienna"), ("Poland", "Warsaw"), ("Ireland", "Dublin"), ("Kenya", "Nairobi")),
    *(("China", "Beijing"), ("Canada", "Ottawa"), ("Portugal", "Lisbon"), ("Iraq", "Baghdad")),
)
SHARED = "dataset_path: json\ntest_split: test\nmetadata: {version: 1}\n"
METRIC = "  - {{metric: {}, aggregation: mean, higher_is_better: true}}\n"
CHOICES = (
    "task: capitals\n"
    + SHARED
    + "dataset_kwargs: {data_files: {test: capitals.jsonl}}\n"
    + "output_type: multiple_choice\n"
    + 'doc_to_text: "Question: What is the capital of {{country}}?\\nAnswer:"\n'
    + 'doc_to_choice: "{{choices}}"\ndoc_to_target: gold\nmetric_list:\n'
    + METRIC.format("acc")
    + METRIC.format("acc_norm")
)
SUMS = (
    "task: sums\n"
    + SHARED
    + "dataset_kwargs: {data_files: {test: sums.jsonl}}\n"
    + "output_type: generate_until\n"
    + 'doc_to_text: "Question: What is {{a}} + {{b}}?\\nAnswer:"\ndoc_to_target: "{{sum}}"\n'
    + 'generation_kwargs: {until: ["Question:", "\\n\\n"], do_sample: false, max_gen_toks: 24}\n'
    + "filter_list:\n"
    + "  - name: last_number\n    filter:\n"
    + "      - {function: regex, regex_pattern: '(-?[0-9]+)', group_select: -1}\n"
    + "      - {function: take_first}\n"
    + "metric_list:\n"
    + METRIC.format("exact_match")
)
PASSAGES = (
    "task: passages\n"
    + SHARED
    + "dataset_kwargs: {data_files: {test: passages.jsonl}}\n"
    + 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
    + "metric_list:\n  - {metric: bits_per_byte}\n  - {metric: word_perplexity}\n"
)
GROUP = (
    "group: everything\ntask: [capitals, capitals_again]\n"
    "aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]\n"
)


def write_tasks(folder: Path) -> Path:
    """A folder with three tasks and their data: 20 choices, 20 sums, 4 passages."""
    folder.mkdir()
    rows = []
    for place, (country, capital) in enumerate(CAPITALS):
        others = [CAPITALS[(place + step) % len(CAPITALS)][1] for step in (3, 7, 11)]
        gold = place % 4
        choices = [*others[:gold], capital, *others[gold:]]
        rows.append({"country": country, "choices": choices, "gold": gold})
    tables.write_lines(folder / "capitals.jsonl", rows)
    sums = [{"a": a, "b": b, "sum": str(a + b)} for a in range(2, 7) for b in range(3, 7)]
    tables.write_lines(folder / "sums.jsonl", sums)
    texts = ["The cat sat on the mat. " * times for times in (1, 3, 9, 40)]
    tables.write_lines(folder / "passages.jsonl", [{"text": text} for text in texts])
    for name, text in (("capitals", CHOICES), ("sums", SUMS), ("passages", PASSAGES)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


def harness_numbers(
    model: Any, tokenizer: Any, folder: Path, chat: bool, shots: int
) -> dict[str, dict[str, float]]:
    """Task -> metric -> value by the harness's own model class and its front door."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    here = Path.cwd()
    os.chdir(folder)  # its data_files are relative to the folder of work
    try:
        results: Any = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=["capitals", "sums", "passages"],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            num_fewshot=shots,
            apply_chat_template=chat,
            bootstrap_iters=0,
        )
    finally:
        os.chdir(here)
    return {
        task: {
            name.partition(",")[0]: float(value)
            for name, value in values.items()
            if "," in name and "stderr" not in name
        }
        for task, values in results["results"].items()
    }


def our_numbers(artifact: Artifact, folder: Path, out: Path, chat: bool, shots: int) -> Any:
    """(task -> metric -> value, rows of answers.jsonl) by the stage."""
    config = LMEvalConfig(
        include_path=str(folder),
        num_fewshot=shots,
        chat_template="on" if chat else "off",
        batch=8,
        dtype="float32",
    )
    LMEval().validate(config, "lm_eval")
    made, _ = perform(LMEval, out, config, models=(artifact,))
    scores = json.loads((made.path / "scores.json").read_text())
    numbers = {}
    for task, groups in scores.items():
        values = groups["all"][artifact.name]
        numbers[task] = {name.partition(" (")[0]: value for name, value in values.items()}
    return numbers, tables.read_lines(made.path / "answers.jsonl")


def compare(artifact: Artifact, model: Any, tokenizer: Any, tmp_path: Path, chat: bool, shots: int):
    """Shares are equal to the digit, perplexities up to the rounding of float32."""
    folder = write_tasks(tmp_path / "tasks")
    theirs = harness_numbers(model, tokenizer, folder, chat, shots)
    ours, rows = our_numbers(artifact, folder, tmp_path / "ours", chat, shots)
    print(theirs)
    for task, metric in (("capitals", "acc"), ("capitals", "acc_norm"), ("sums", "exact_match")):
        assert ours[task][metric] == theirs[task][metric], (task, metric)
    for metric in ("bits_per_byte", "word_perplexity"):
        assert ours["passages"][metric] == pytest.approx(theirs["passages"][metric], rel=1e-5)
    return ours, rows


@pytest.mark.slow
@pytest.mark.parametrize("chat, shots", [(False, 0), (False, 3), (True, 0), (True, 3)])
def test_smollm2_gives_the_numbers_of_the_harness(tmp_path, chat, shots):
    folder = os.environ.get("LLMSTAGES_SMOLLM2", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LLMSTAGES_SMOLLM2 names no folder with SmolLM2-135M-Instruct")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    artifact = Artifact("smollm2", "model", Path(folder), "smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours, _ = compare(artifact, model, tokenizer, tmp_path, chat, shots)
    assert ours["capitals"]["acc"] > 0.5, "the comparison would say little of a model that guesses"
