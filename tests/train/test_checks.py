"""A check that fails stops the step, unless its id is allowed; docs/sft.md lists all ids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.data.dialogues import Dialogue
from llmstages.text.render import render
from llmstages.train import dialogue_checks, template_checks, token_checks
from llmstages.train.checks import Check, allowing, check_share, check_value, describe
from tests.tiny import TALK, perform, saved_model, tiny_tokenizer
from tests.train.sft_step import ANSWER, QUESTION, run_sft, saved_checks, sft_inputs

TWO_ANSWERS = [QUESTION, ANSWER, ANSWER]


def test_a_failed_check_is_allowed_by_its_id_and_the_record_says_so(tmp_path):
    run_sft(
        tmp_path,
        sft_inputs(tmp_path, [TALK, TWO_ANSWERS]),
        allow_failed_checks=["roles_out_of_order"],
    )
    line = (
        "roles_out_of_order (dialogues whose roles are out of order): 1, limit 0 (chats:1); "
        "allowed by sft.allow_failed_checks"
    )
    assert any(line in said for said in perform.said)
    check = saved_checks(tmp_path)["roles_out_of_order"]
    assert set(check) == {"id", "title", "value", "limit", "passed", "allowed", "fix", "rows"}
    assert check["allowed"]
    assert not check["passed"]


def test_an_unknown_id_is_refused_with_the_nearest_one_and_all_ids(tmp_path):
    inputs = sft_inputs(tmp_path, [TALK])
    with pytest.raises(StageError, match="Did you mean 'roles_out_of_order'") as error:
        run_sft(tmp_path, inputs, allow_failed_checks=["roles_out_of_orde"])
    assert "empty_dialogues, content_not_text, unknown_roles" in str(error.value)
    with pytest.raises(StageError, match="is not the id of a check of this step"):
        run_sft(
            tmp_path / "again",
            inputs,
            allow_failed_checks=["dialogues whose roles are out of order"],
        )


def test_a_check_is_described_in_one_line():
    rows = [f"chats:{i}" for i in range(7)]
    check = check_value("a_count", "rows", value=7, limit=0, passed=False, fix="drop", rows=rows)
    shown = "chats:0, chats:1, chats:2, chats:3, chats:4"
    assert describe(check) == f"a_count (rows): 7, limit 0 ({shown}, ...)"
    assert describe(Check("a_share", "share", 0.5, 0.9, False, "fix")) == (
        "a_share (share): 0.5, limit 0.9"
    )
    assert allowing([check, check], "sft") == "sft.allow_failed_checks=[a_count,a_count]"


@pytest.mark.parametrize(
    "failing, total, passed", [(0, 0, True), (1, 10, True), (2, 10, False), (2, 9, True)]
)
def test_a_share_is_checked_from_a_number_of_rows_on(failing, total, passed):
    rows = ["row"] * failing
    check = check_share("id", "share", rows, total, limit=0.1, fix="fix", min_total=10)
    assert check.passed is passed
    assert check.value == pytest.approx(failing / max(total, 1), abs=1e-6)


def test_the_documentation_lists_every_check(tmp_path):
    tokenizer = tiny_tokenizer()
    dialogues = [Dialogue("chats:0", TALK)]
    checks = [
        *dialogue_checks.check_dialogues(dialogues),
        *dialogue_checks.check_leaks(dialogues, ["Who?"]),
        dialogue_checks.check_left_out([], 1, "fix"),
        *token_checks.check_rows(render(tokenizer, [TALK]), tokenizer, context=128),
        *token_checks.check_model(saved_model(tmp_path / "base").path, tokenizer),
        *template_checks.check_dialogue_template(dialogues, tokenizer),
    ]
    text = (Path(__file__).parents[2] / "docs" / "sft.md").read_text()
    section = text.partition("## Checks")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, flags=re.M)
    ids = [check.id for check in checks]
    assert sorted(documented) == sorted(ids)
    assert len(set(ids)) == len(ids)
