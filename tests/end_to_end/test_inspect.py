"""``llmstages inspect``: what a step trains on, from inputs that are there, before anything trains."""

from __future__ import annotations

import pytest

from tests.end_to_end.chain import llmstages

RECIPE = "recipe=smoke"


def inspect(smoke, *words, code=0):
    done = llmstages("inspect", *words, RECIPE, folder=smoke.folder, code=code)
    assert "Traceback" not in done.err + done.out
    return done


def store(smoke):
    return sorted(path.name for path in (smoke.folder / "store").iterdir())


def test_tokens_mask_and_gates_of_a_step(smoke, tmp_path):
    before, page = store(smoke), tmp_path / "sft.html"
    done = inspect(smoke, "sft", "--row", "dialogues:3", "--template", "--html", str(page))
    shown = inspect(smoke, "sft", "--row", "dialogues:3")
    row = next(
        line
        for line in shown.out.splitlines()
        if line.startswith("<|endoftext|><|im_start|>user<|im_sep|>")
    )
    assert (
        row.count("«") == row.count("»") == 1
        and row.endswith("<|im_end|>»")
        and "<|im_start|>assistant<|im_sep|>«" in row
    )
    assert (
        "ok      rows that begin with exactly one BOS" in shown.out
        and "next    llmstages run only=sft recipe=smoke" in shown.out
    )
    assert (
        "{%- generation -%}" in done.out
        and "dialogues:3" in page.read_text()
        and "<script" not in page.read_text()
    )
    assert store(smoke) == before


@pytest.mark.parametrize("step", ["pretrain", "assistant", "polite", "reward", "rl", "hacked"])
def test_every_training_step_can_be_looked_at(smoke, step):
    done = inspect(smoke, step, "--count", "2")
    assert f"next    llmstages run only={step}" in done.out and done.out.count("<|endoftext|>") >= 2


def test_a_gate_that_would_stop_the_step_is_told_with_rows_and_cure(smoke):
    done = inspect(smoke, "sft", "sft.max_length=12")
    assert (
        "STOPS   share of dialogues too long" in done.out
        and "raise max_length, or overlong=split" in done.out
    )
    assert "sft.allow=[" in done.out and "share_of_dialogues_too_long" in done.out


def test_rows_are_found_by_their_text(smoke):
    rows = inspect(smoke, "sft", "--find", "trade", "--count", "2").out.count("under loss («")
    assert 1 <= rows <= 2


@pytest.mark.parametrize(
    "words, told",
    [
        (("sft", "--row", "dialogues:99999"), "there is no row 'dialogues:99999'"),
        (("sft", "--find", "xyzzy"), "no row of step 'sft' holds 'xyzzy'"),
        (("corpus",), "trains on no rows"),
        (("sfft",), "Did you mean 'sft'?"),
        (("sft", "tokenizer.vocab_size=600"), "which is not made yet (input tokenizer changed"),
    ],
)
def test_what_cannot_be_shown_is_told(smoke, words, told):
    done = inspect(smoke, *words, code=2)
    assert told in done.err
