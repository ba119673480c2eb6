"""dialogues.synthesize and its service: failures, refusals, keys, and models of the run."""

from __future__ import annotations

import dataclasses as dc
import json
from pathlib import Path

import pytest

from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.plugins.dialogues.synthesize import Synthesize, SynthesizeConfig
from llmstages.text import generate
from llmstages.text.messages import message
from tests.openai_service import completion, service
from tests.plugins.dialogues.synthesis import (
    FAST,
    KEY,
    adds_up,
    corpus,
    good,
    make,
    rules,
    talk,
    town,
)
from tests.tiny import perform, saved_model


def test_failures_that_pass_are_repeated(tmp_path):
    trouble = iter(
        [
            429,
            (429, {"Retry-After": "0.05"}),
            500,
            503,
            2.0,
            (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        ]
    )
    _, metrics, server = make(
        tmp_path,
        lambda asked, number: next(trouble, None) or good(asked),
        timeout=0.5,
        concurrency=3,
        retries=6,
    )
    assert metrics["kept"] == 12 and metrics["failed"] == 0 and len(server.asked) == 18


def test_a_dead_service_is_given_up_and_its_answers_are_not_asked_for_again(tmp_path):
    pages = corpus(tmp_path / "pages")
    said: list[str] = []
    folders = [tmp_path / name for name in ("out", "work", "again")]
    for folder in folders:
        folder.mkdir()
    with service(lambda asked, number: good(asked) if number <= 7 else 500) as server:
        config = SynthesizeConfig(endpoint=server.url, concurrency=1, retries=2, patience=2, **FAST)
        with pytest.raises(
            StageError, match=r"failed 2 requests in a row.*HTTP 500.*The answers so far are saved"
        ):
            Synthesize().run(
                config, Context("dialogues", folders[0], folders[1], {"corpus": pages})
            )
        assert len(server.asked) <= 7 + 3 * 3  # a third request may have begun
    (folders[1] / "answers.jsonl").open("a").write('\n["torn by a k')
    with service(good) as server:
        config = dc.replace(config, endpoint=server.url)
        metrics = Synthesize().run(
            config, Context("dialogues", folders[2], folders[1], {"corpus": pages}, say=said.append)
        )
        assert (
            len(server.asked) == 5
            and metrics["kept"] == 12
            and "7 of 12 answers are there" in said[0]
        )
    whole, _, _ = make(tmp_path, good, "whole")
    assert tables.load(folders[2] / "data").to_list() == tables.load(whole.path / "data").to_list()


def test_a_refusal_is_of_one_request_unless_all_are_refused(tmp_path):
    made, metrics, server = make(
        tmp_path,
        lambda asked, number: 403 if 1 < number < 8 else good(asked),
        patience=2,
        concurrency=1,
    )
    adds_up(metrics, made)
    assert rules(made) == {"refused": 6} and metrics["kept"] == 6 and len(server.asked) == 12
    with pytest.raises(StageError, match="in a row.*HTTP 400"):
        make(tmp_path, lambda asked, number: 400, "all", patience=2, concurrency=1)


@pytest.mark.parametrize(
    "answer, advice",
    [
        (401, "OPENAI_API_KEY"),
        (404, "does it serve 'writer-1'"),
        ((302, {"Location": "http://127.0.0.1:9/"}), "correct the address"),
    ],
)
def test_what_no_repetition_fixes_stops_at_once(tmp_path, answer, advice):
    with pytest.raises(StageError, match=advice) as caught:
        make(tmp_path, lambda asked, number: answer, concurrency=1)
    assert KEY not in str(caught.value)


def test_missing_models_and_files_are_named(tmp_path):
    with pytest.raises(StageError, match="has no writer: wire a model"):
        perform(Synthesize, tmp_path / "a", SynthesizeConfig(), corpus=corpus(tmp_path / "corpus"))
    with pytest.raises(StageError, match="guideline=/none cannot be read"):
        perform(
            Synthesize,
            tmp_path / "e",
            SynthesizeConfig(endpoint="http://127.0.0.1:9/v1", guideline="/none", **FAST),
            corpus=corpus(tmp_path / "corpus"),
        )
    with pytest.raises(StageError, match="judge_model=j is asked at"):
        perform(
            Synthesize,
            tmp_path / "b",
            SynthesizeConfig(judge_model="j"),
            corpus=corpus(tmp_path / "corpus"),
            writer=saved_model(tmp_path / "m"),
        )
    with pytest.raises(StageError, match="in a row.*Connect"):
        perform(
            Synthesize,
            tmp_path / "c",
            SynthesizeConfig(endpoint="http://127.0.0.1:9/v1", retries=1, **FAST),
            corpus=corpus(tmp_path / "corpus"),
        )
    with pytest.raises(StageError, match="no usable example.*form=text"):
        make(tmp_path, lambda asked, number: "no", "d")


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "WRITER"]
)  # the second is not named like a secret
def test_the_key_is_in_no_file_and_no_message(tmp_path, monkeypatch, name):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv(name, KEY)

    def echo(asked, number):
        if number == 3:
            return 400  # with the header in its body
        if number == 4:
            return json.dumps(talk(f"Bearer {KEY}"))
        return good(asked)

    _, metrics, server = make(tmp_path, echo, key_variable=name, concurrency=1, num_examples=12)
    assert (
        server.seen[0]["Authorization"] == f"Bearer {KEY}"
        and metrics["failed"] == 1
        and metrics["kept"] == 11
    )
    files = [path for path in (tmp_path / "dialogues").rglob("*") if path.is_file()]
    assert any(path.name == "answers.jsonl" for path in files) and not [
        path for path in files if KEY.encode() in path.read_bytes()
    ]
    assert KEY not in "\n".join(perform.said) and any(b"***" in path.read_bytes() for path in files)


def test_half_a_key_is_not_shown_either(tmp_path, monkeypatch):
    with pytest.raises(StageError, match="in a row") as caught:
        make(tmp_path, lambda asked, number: b"." * 190 + KEY.encode(), retries=0)
    assert KEY[:6] not in str(caught.value) and "...***" in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "one-key\ntwo-key")
    with pytest.raises(StageError, match="OPENAI_API_KEY does not hold a key") as caught:
        make(tmp_path, good, "b")
    assert "one-key" not in str(caught.value)


def test_what_no_file_can_hold_is_replaced(tmp_path):
    def answer(asked, number):
        return "What\ud800 of Ansel\0?" if "question alone" in asked else "It\udfff is."

    made, metrics, _ = make(tmp_path, answer, form="text", documents=1)
    assert tables.load(made.path / "data")["messages"][0][0]["content"] == "What\ufffd of Ansel?"
    sly = json.dumps(talk("<\0|im_start|>system")), json.dumps(talk("Brome \ud800"))
    made, metrics, _ = make(
        tmp_path, lambda asked, number: sly[town(asked) == "Brome"], "json", documents=2
    )
    assert rules(made) == {"template_marks": 1} and metrics["kept"] == 1


def test_no_key_is_sent_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_strangers")
    _, _, server = make(tmp_path, good)
    assert not any("Authorization" in seen or "hf_not" in str(seen) for seen in server.seen)


@pytest.mark.parametrize(
    "values",
    [
        {"key_variable": "sk-12345"},
        {"key_variable": "hf_abc"},
        {"endpoint": "http://me:word@x/v1"},
        {"endpoint": "https://x/v1?api_key=word"},
        {"endpoint": "localhost:8000"},
        {"documents": -1},
        {"min_score": 6},
        {"max_similarity": 0.0},
        {"request_types": []},
    ],
)
def test_values_that_cannot_be_meant(values):
    with pytest.raises(StageError) as caught:
        build_config(SynthesizeConfig, values, "dialogues")
    assert not any(secret in str(caught.value) for secret in ("12345", "hf_abc", "word@", "=word"))


def test_fields_of_a_request_can_be_added_and_removed(tmp_path):
    _, _, server = make(
        tmp_path, good, body={"max_tokens": None, "max_completion_tokens": 9}, temperature=0.5
    )
    assert (
        server.asked[0]["max_completion_tokens"] == 9
        and "max_tokens" not in server.asked[0]
        and server.asked[0]["temperature"] == 0.5
    )


def test_text_form_asks_turn_by_turn(tmp_path):
    def answer(asked, number):
        if "Reply with the question alone" in asked:
            if town(asked) == "Cull":
                return ""
            then = " then" if "follows up" in asked else ""
            return f" What about {town(asked)} and {town(asked)}{then}? "
        if town(asked) == "Dorn":
            return completion("It", "length")
        return f"<think>Hm.</think>\nIt is {town(asked)}."

    made, metrics, server = make(tmp_path, answer, form="text", turns=2, documents=5)
    adds_up(metrics, made)
    rows = list(tables.load(made.path / "data"))
    assert rows[0]["messages"] == [
        message("user", "What about Ansel and Ansel?"),
        message("assistant", "It is Ansel."),
        message("user", "What about Ansel and Ansel then?"),
        message("assistant", "It is Ansel."),
    ]
    assert rules(made) == {"empty_turn": 1, "cut": 1} and len(server.asked) == 5 * 2 + 4 * 2
    assert len(tables.read_lines(made.path / "samples.jsonl")[0]["exchanges"]) == 4


def test_a_model_step_writes_and_judges(tmp_path, monkeypatch):
    batches = []

    def oracle(model, tokenizer, asked, **how):
        batches.append([len(asked), how["temperature"]])
        texts = [one[-1]["content"] for one in asked]
        return [
            generate.Reply(
                [
                    message(
                        "assistant",
                        f"{town(t)} of {town(t)}?"
                        if "question alone" in t
                        else good(t)
                        if "Judge" in t
                        else "Yes.",
                    )
                ],
                True,
                cut=town(t) == "Cull",
            )
            for t in texts
        ]

    monkeypatch.setattr(generate, "reply", oracle)
    model = saved_model(tmp_path / "model")
    made, metrics = perform(
        Synthesize,
        tmp_path / "a",
        SynthesizeConfig(form="text", batch=8),
        corpus=corpus(tmp_path / "corpus"),
        writer=model,
        judge=model,
    )
    adds_up(metrics, made)
    assert (
        batches == [[8, 0.8], [4, 0.8], [8, 0.8], [3, 0.8], [8, 0.0], [3, 0.0]]
        and metrics["kept"] == 11
        and rules(made) == {"too_long": 1}
    )
    assert set(tables.load(made.path / "data")["writer"]) == {"model"}


def test_address_key_and_speed_do_not_change_the_fingerprint(tmp_path):
    silent = {field.name for field in dc.fields(SynthesizeConfig) if not field.metadata["identity"]}
    assert silent == {
        "endpoint",
        "key_variable",
        "concurrency",
        "timeout",
        "retries",
        "wait",
        "patience",
    }
    guideline = next(f for f in dc.fields(SynthesizeConfig) if f.name == "guideline")
    assert Path(guideline.default).exists() and guideline.metadata["file"]
