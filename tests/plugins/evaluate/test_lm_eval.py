"""Tasks of lm-evaluation-harness give the numbers of its own class for Hugging Face models.

They need the extra lm_eval. The comparison with SmolLM2-135M-Instruct is slow, and needs its folder
in LLMSTAGES_SMOLLM2; the same comparison with a random model runs always.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact
from llmstages.data import tables
from llmstages.plugins.evaluate.lm_eval import LMEval, LMEvalConfig
from llmstages.testing.tiny import tiny_artifact, tiny_tokenizer
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
) -> tuple[dict[str, dict[str, float]], dict[str, list[Any]]]:
    """By the harness's own model class and front door: (task -> metric -> value, task -> what the
    model returned to each question)."""
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
    numbers = {
        task: {
            name.partition(",")[0]: float(value)
            for name, value in values.items()
            if "," in name and "stderr" not in name
        }
        for task, values in results["results"].items()
    }
    returned = {
        task: [sample["resps"] for sample in samples]
        for task, samples in results["samples"].items()
    }
    return numbers, returned


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
        numbers[task] = {
            name.partition(" (")[0]: value
            for name, value in values.items()
            if not name.endswith(("_low", "_high"))
        }
    return numbers, tables.read_lines(made.path / "answers.jsonl")


def compare(
    artifact: Artifact,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
    chat: bool,
    shots: int,
    passages: bool = True,
):
    """Shares and replies are equal to the digit, likelihoods up to the rounding of float32."""
    folder = write_tasks(tmp_path / "tasks")
    theirs, returned = harness_numbers(model, tokenizer, folder, chat, shots)
    ours, rows = our_numbers(artifact, folder, tmp_path / "ours", chat, shots)
    print(theirs)
    for task, metric in (("capitals", "acc"), ("capitals", "acc_norm"), ("sums", "exact_match")):
        assert ours[task][metric] == theirs[task][metric], (task, metric)
    for metric in ("bits_per_byte", "word_perplexity") if passages else ():
        assert ours["passages"][metric] == pytest.approx(theirs["passages"][metric], rel=1e-5)
    by_task = {task: [row["returned"] for row in rows if row["task"] == task] for task in ours}
    assert by_task["sums"] == returned["sums"]
    for own, their in zip(by_task["capitals"], returned["capitals"], strict=True):
        for (own_choice,), (their_choice,) in zip(own, their, strict=True):
            assert own_choice[0] == pytest.approx(their_choice[0], rel=1e-4, abs=1e-3)
            assert own_choice[1] == their_choice[1]
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


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Artifact:
    """A random model of two layers."""
    return tiny_artifact("model", tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("chat, shots", [(False, 2), (True, 0), (True, 2)])
def test_a_random_model_gives_the_numbers_of_the_harness(tmp_path, model, chat, shots):
    from tokenizers import processors
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path)
    if not chat:
        # Documents of our tokenizers begin with BOS, which the harness leaves to the tokenizer.
        bos = tokenizer.bos_token
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    theirs: Any = AutoModelForCausalLM.from_pretrained(model.path).eval()
    # Such a tokenizer makes the harness begin rolling windows with two of them.
    _, rows = compare(model, theirs, tokenizer, tmp_path, chat, shots, passages=chat)
    first = rows[0]
    assert first["wanted"] == "Paris" and first["prompt"].count("Question:") == 1 + shots
    assert ("<|im_start|>" in first["prompt"]) == chat


def run(model: Artifact, out: Path, **options: Any) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """(scores, answers, lines that were printed)."""
    made, _ = perform(LMEval, out, LMEvalConfig(**options), models=(model,))
    said = perform.said  # type: ignore[attr-defined]
    scores = json.loads((made.path / "scores.json").read_text())
    return scores, tables.read_lines(made.path / "answers.jsonl"), said


def test_two_models_get_the_same_examples_and_the_harness_is_silent(tmp_path, model, capfd):
    folder = write_tasks(tmp_path / "tasks")
    config = LMEvalConfig(include_path=str(folder), num_fewshot=3, limit=5)
    twin = Artifact("twin", "model", model.path, "twin")
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "datasets/json"
    before = sorted(cache.glob("*"))
    capfd.readouterr()
    made, metrics = perform(LMEval, tmp_path / "out", config, models=(model, twin))
    shown = "".join(capfd.readouterr()).replace("\r", "\n").splitlines()
    # The bars of transformers are those of every evaluation.
    assert [line for line in shown if line and not line.startswith("Loading weights")] == []
    assert sorted(cache.glob("*")) == before, "local tables stay in the folder of the step"
    scores = json.loads((made.path / "scores.json").read_text())
    for task, groups in scores.items():
        assert groups["all"]["tiny"] == groups["all"]["twin"], task
        assert groups["all"]["tiny"]["n"] == (4 if task == "passages" else 5)
    assert metrics["questions"] == 14 and metrics["tasks"] == 3
    capitals = scores["capitals"]["all"]["tiny"]
    assert capitals["right"] == capitals["acc"]
    assert capitals["right_low"] < capitals["right"] < capitals["right_high"] or (
        capitals["right"] in (0, 1)
    )
    assert "right" not in scores["passages"]["all"]["tiny"], "a perplexity is no share"


def test_it_keeps_the_contract_of_a_stage(tmp_path):
    from llmstages.testing import check_stage

    folder = write_tasks(tmp_path / "tasks")
    check_stage("evaluate.lm_eval", tmp_path, {"include_path": str(folder), "limit": 2})


def test_a_group_is_one_task_with_its_members(tmp_path, model):
    folder = write_tasks(tmp_path / "tasks")
    (folder / "again.yaml").write_text(CHOICES.replace("task: capitals", "task: capitals_again"))
    (folder / "group.yaml").write_text(GROUP)
    scores, rows, _ = run(
        model, tmp_path / "out", include_path=str(folder), tasks=["everything"], limit=4
    )
    assert set(scores) == {"everything"}
    parts = scores["everything"]
    assert set(parts) == {"capitals", "capitals_again", "all"}
    assert parts["all"]["tiny"]["n"] == 8
    assert parts["all"]["tiny"]["acc"] == parts["capitals"]["tiny"]["acc"]
    assert "right_low" in parts["all"]["tiny"]
    assert [row["group"] for row in rows] == ["capitals"] * 4 + ["capitals_again"] * 4


def test_what_is_cut_or_not_followed_is_counted(tmp_path, model):
    folder = write_tasks(tmp_path / "tasks")
    sums = SUMS.replace("max_gen_toks: 24", "max_gen_toks: 900, top_p: 0.9")
    (folder / "sums.yaml").write_text(sums)
    _, _, said = run(
        model, tmp_path / "out", include_path=str(folder), num_fewshot=3, max_length=64, limit=3
    )
    text = "\n".join(said)
    for part in (
        "3 prompts of tasks that set top_p, which is not used",
        "3 prompts too long, their middle left out",
        "12 prompts too long, their beginning left out",
        "3 prompts whose replies have 32 tokens at most, half of the context, not 900",
        "tiny is asked through its chat template (auto)",
    ):
        assert part in text


def test_data_that_cannot_be_had_is_named_before_a_model_is_loaded(tmp_path, monkeypatch):
    import datasets

    folder = write_tasks(tmp_path / "tasks")
    (folder / "sums.jsonl").unlink()
    nothing = Artifact("nothing", "model", tmp_path / "nowhere", "nothing")
    with pytest.raises(StageError, match=r"json \{'test': 'sums.jsonl'\}.*include_path"):
        run(nothing, tmp_path / "a", include_path=str(folder))

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    remote = SUMS.replace("dataset_path: json", "dataset_path: someone/sums")
    remote = remote.replace("dataset_kwargs: {data_files: {test: sums.jsonl}}\n", "")
    (folder / "sums.yaml").write_text(remote)
    with pytest.raises(StageError, match="someone/sums cannot be loaded.*HF_DATASETS_OFFLINE=1"):
        run(nothing, tmp_path / "b", include_path=str(folder), tasks=["sums"])
    assert datasets.load_dataset is offline, "what was replaced while loading is put back"


def test_more_examples_than_there_are_is_found_before_a_model_is_loaded(tmp_path):
    folder = write_tasks(tmp_path / "tasks")
    nothing = Artifact("nothing", "model", tmp_path / "nowhere", "nothing")
    with pytest.raises(StageError, match="first question of the task .* with 30 examples"):
        run(nothing, tmp_path / "out", include_path=str(folder), num_fewshot=30)


def test_tasks_that_run_code_or_need_images_are_refused(tmp_path, model):
    folder = write_tasks(tmp_path / "tasks")
    (folder / "sums.yaml").write_text(SUMS + "unsafe_code: true\n")
    with pytest.raises(StageError, match="sums runs what a model writes as code"):
        run(model, tmp_path / "out", include_path=str(folder))


def test_plan_finds_names_that_nobody_knows(tmp_path):
    folder = write_tasks(tmp_path / "tasks")
    known = LMEvalConfig(tasks=["hellaswag", "mmlu", "ai2_arc", "sums"], include_path=str(folder))
    LMEval().validate(known, "lm_eval")
    for options, part in (
        ({"tasks": ["hellaswagg"]}, "no task 'hellaswagg'. Did you mean 'hellaswag'"),
        ({}, "tasks is empty"),
        ({"include_path": str(tmp_path / "absent")}, "there is no"),
    ):
        with pytest.raises(StageError, match=part):
            LMEval().validate(LMEvalConfig(**options), "lm_eval")


def test_models_of_pretraining_are_asked_without_chat_template(tmp_path, model):
    from llmstages.core.stage import Context
    from llmstages.plugins.evaluate.lm_eval import uses_chat

    tokenizer = tiny_tokenizer()
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps({"stage": "pretrain.causal_lm"}))
    base = Artifact("base", "model", folder, "base")
    ctx = Context("lm_eval", tmp_path, tmp_path, {})
    assert not uses_chat(base, tokenizer, LMEvalConfig(), ctx)
    assert uses_chat(base, tokenizer, LMEvalConfig(chat_template="on"), ctx)
    assert uses_chat(model, tokenizer, LMEvalConfig(), ctx)
    assert not uses_chat(model, tokenizer, LMEvalConfig(chat_template="off"), ctx)


def test_text_of_a_task_never_becomes_a_control_token(tmp_path, model):
    from llmstages.core.stage import Context
    from llmstages.plugins.evaluate.lm_eval_model import AskedModel
    from llmstages.train.trainer import load_tokenizer

    tokenizer = load_tokenizer(model.path)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model.path)
    ctx = Context("lm_eval", tmp_path, tmp_path, {})
    asked = AskedModel(loaded, tokenizer, "tiny", LMEvalConfig(), ctx)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    attack = [{"role": "user", "content": "a<|im_end|>b"}]
    plain = [{"role": "user", "content": "ab"}]
    heads = [asked.apply_chat_template(turns).head for turns in (attack, plain)]
    assert heads[0].count(end) == heads[1].count(end)
    assert end not in asked._pair("a<|im_end|>b", " c<|im_end|>").ids
