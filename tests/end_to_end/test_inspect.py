"""``llmstages inspect``: what a step trains on, from inputs that exist, before anything trains."""

from __future__ import annotations

import pytest

from tests.end_to_end.chain import llmstages

RECIPE = "recipe=smoke"
SLOW_STEPS = ("pretrain", "sft_style", "reward", "rlhf_no_kl")


def inspect(smoke, *words, code=0):
    done = llmstages("inspect", *words, RECIPE, folder=smoke.folder, code=code)
    assert "Traceback" not in done.err + done.out
    return done


def store(smoke):
    return sorted(path.name for path in (smoke.folder / "store").iterdir())


def test_tokens_and_mask_of_a_row(smoke):
    shown = inspect(smoke, "sft", "--row", "dialogues:3").out
    begin = "<|endoftext|><|im_start|>user<|im_sep|>"
    row = next(line for line in shown.splitlines() if line.startswith(begin))
    assert row.count("«") == row.count("»") == 1
    assert "<|im_start|>assistant<|im_sep|>«" in row
    assert row.endswith("<|im_end|>»")


def test_checks_and_the_next_command(smoke):
    shown = inspect(smoke, "sft", "--count", "0").out
    line = next(line for line in shown.splitlines() if line.startswith("ok      bos_count "))
    assert line.endswith("rows with a BOS missing or twice")
    assert "next    llmstages run recipe=smoke only=sft" in shown


def test_without_a_recipe_it_is_of_the_last_run(smoke):
    done = llmstages("inspect", "sft", "--count", "0", "name=smoke", folder=smoke.folder)
    assert done.out.startswith("of the run 'smoke': llmstages run ")
    assert "ok      bos_count " in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("next    ")]
    assert line.endswith("only=sft")
    assert RECIPE in line


def test_template_and_page(smoke, tmp_path):
    before, page = store(smoke), tmp_path / "sft.html"
    done = inspect(smoke, "sft", "--row", "dialogues:3", "--template", "--html", str(page))
    assert "{%- set style = " in done.out
    assert "dialogues:3" in page.read_text()
    assert "<script" not in page.read_text()
    assert store(smoke) == before


@pytest.mark.parametrize(
    "step",
    [
        "sft_tools",
        "rl",
        *(pytest.param(step, marks=pytest.mark.slow) for step in SLOW_STEPS),
    ],
)
def test_every_training_step_can_be_inspected(smoke, step):
    shown = inspect(smoke, step, "--count", "2").out
    assert f"next    llmstages run recipe=smoke only={step}" in shown
    assert shown.count("<|endoftext|>") >= 2


def test_a_check_that_would_stop_the_step_is_shown_with_rows_and_fix(smoke):
    shown = inspect(smoke, "sft", "sft.max_length=12").out
    assert "STOPS   dialogues_too_long" in shown
    assert "raise max_length, or overlong=split" in shown
    override = shown.partition("sft.allow_failed_checks=[")[2].partition("]")[0]
    assert "dialogues_too_long" in override.split(",")


def test_a_check_that_may_fail_is_shown_as_allowed(smoke):
    allowed = "sft.allow_failed_checks=[dialogues_too_long]"
    shown = inspect(smoke, "sft", "sft.max_length=12", allowed).out
    assert "allowed dialogues_too_long" in shown


def test_rows_are_found_by_their_text(smoke):
    shown = inspect(smoke, "sft", "--find", "trade", "--count", "2").out
    assert 1 <= shown.count("under loss («") <= 2


@pytest.mark.parametrize(
    "words, reason",
    [
        (("sft", "--row", "dialogues:99999"), "there is no row 'dialogues:99999'"),
        (("sft", "--find", "xyzzy"), "no row of step 'sft' contains 'xyzzy'"),
        (("corpus",), "trains on no rows"),
        (("sfft",), "Did you mean 'sft'?"),
        (("sft", "tokenizer.vocab_size=600"), "which is not made yet (input tokenizer changed"),
    ],
)
def test_what_cannot_be_shown_is_an_error(smoke, words, reason):
    assert reason in inspect(smoke, *words, code=2).err
