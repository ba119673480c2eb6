"""Chat, tokens, votes and dialogues of the studio."""

from __future__ import annotations

import json

import pytest

from llmstages.data import tables
from llmstages.pipeline.api import run, step
from llmstages.serve.pool import LoadedModel
from tests.scripted import scripted

ASK = [{"role": "user", "content": "What is 2+3?"}]
CALL = ["<CALC_START>", "2+3", "<CALC_END>"]
ANSWER = ["It is 5.", "<|im_end|>"]


@pytest.fixture
def says(studio, last):
    """says(replies, ...): what the model `helper` says, in order."""

    def with_replies(*replies, name="helper"):
        session = scripted(last, *replies, context=512)
        path = last.steps[name].path
        studio.pool._loaded[path] = LoadedModel(last.steps[name], session)
        return session

    return with_replies


def test_a_reply_is_streamed_with_its_calls_and_ends_with_its_tokens(client, says):
    session = says(CALL, ANSWER)
    events = client.stream("/api/chat", model="helper", turns=ASK)
    kinds = [event["what"] for event in events]
    assert kinds[0] == "model" and kinds[-1] == "done"
    assert {"call", "argument", "result", "text"} <= set(kinds)
    done = events[-1]
    assert [turn["role"] for turn in done["turns"]] == ["assistant", "tool", "assistant"]
    assert done["turns"][1]["content"] == "5"
    ids = [token["id"] for token in done["tokens"]]
    assert ids[: len(session.model.prompts[1])] == session.model.prompts[1]
    own = "".join(token["text"] for token in done["tokens"] if token["supervised"])
    assert own == "<CALC_START> 2+3<CALC_END> It is 5.<|im_end|>", "what SFT would train"


def test_a_conversation_goes_on_with_the_calls_of_earlier_replies(client, says):
    session = says(ANSWER)
    turns = [
        *ASK,
        {"role": "assistant", "content": "2+3", "tool": "calculator"},
        {"role": "tool", "content": "5", "tool": "calculator"},
        {"role": "assistant", "content": "It is 5.", "tool": ""},
        {"role": "user", "content": "Sure?", "tool": ""},
    ]
    client.stream("/api/chat", model="helper", turns=turns, system="Be brief.")
    text = session.tokenizer.decode(session.model.prompts[0])
    assert "<CALC_START>" in text and "Sure?" in text and "Be brief." in text


def test_a_base_model_continues_a_document(client):
    events = client.stream("/api/chat", model="base", turns=ASK, max_new_tokens=5)
    assert events[0]["base"] is True
    assert events[-1]["what"] == "done"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": "helper", "turns": []}, "turns must be a list"),
        ({"model": "helper", "turns": [{"role": "assistant", "content": "x"}]}, "end with"),
        ({"model": "helper", "turns": ASK, "temperature": "hot"}, "temperature must be a number"),
        ({"model": "pages", "turns": ASK}, "there is no model 'pages'"),
        ({"model": "../helper", "turns": ASK}, "there is no model"),
    ],
)
def test_what_is_no_conversation_is_refused(client, body, message):
    assert message in client.stream("/api/chat", **body)[-1]["error"]


def test_tokenizers_side_by_side(client, studio):
    text = "Größe <|im_end|> 12"
    data = client.post("/api/tokens", text=text, tokenizers=["tokenizer", "helper"])
    assert data["bytes"] == len(text.encode())
    for column in data["columns"]:
        raw = b"".join(bytes.fromhex(token["bytes"]) for token in column["tokens"])
        assert raw.decode().strip() == text
        assert not any(token["kind"] == "control" for token in column["tokens"])
    assert (
        "tokenizer 'nobody'"
        in (client.post("/api/tokens", 400, text="a", tokenizers=["nobody"])["error"]["message"])
    )


def vote(client, prompt, choice):
    events = client.stream("/api/pair", prompt=prompt, models=["helper", "plain"])
    text = {"first": "", "second": ""}
    for event in events[:-1]:
        text[event["side"]] += event["text"]
    result = client.post("/api/vote", pair=events[-1]["pair"], choice=choice)
    return text, result


def test_votes_become_preferences_that_a_reward_model_trains_on(
    client, studio, says, made, tmp_path
):
    """From the page to a trained reward model."""
    for number in range(8):
        says([f"near river {number}", "<|im_end|>"])
        says([f"no {number}", "<|im_end|>"], name="plain")
        choice = ["first", "second", "tie"][number % 3]
        text, result = vote(client, f"Where is town {number}?", choice)
        by_model = {model: text[side] for side, model in result["models"].items()}
        assert by_model == {"helper": f"near river {number}", "plain": f"no {number}"}
    assert result["votes"] == 8
    assert sum(row["share"] * row["votes"] for row in result["standing"]) == 8
    for row in result["standing"]:
        assert row["interval"][0] <= row["share"] <= row["interval"][1]
    written = tables.read_lines(studio.notes / "votes.jsonl")
    assert sum(row["score_chosen"] == row["score_rejected"] for row in written) == 2
    pairs = step("pairs", "preferences.files", {"path": str(studio.notes / "votes.jsonl")})
    judge = step(
        "judge",
        "reward.pairwise",
        {"epochs": 1, "batch_size": 2, "test_fraction": 0.2},
        model=str(made / "runs" / "tiny" / "plain"),
        preferences=pairs,
    )
    results = run([pairs, judge], tmp_path / "store", quiet=True)
    assert results["pairs"].metrics["examples"] == 6
    assert results["judge"].metrics["updates"] >= 2


def test_a_pair_is_voted_on_once_and_only_if_it_was_shown(client, says):
    says(ANSWER)
    says(ANSWER, name="plain")
    events = client.stream("/api/pair", prompt="Hi", models=["helper", "plain"])
    pair = events[-1]["pair"]
    assert events[-1]["same"] is True
    assert (
        "choice must be"
        in client.post("/api/vote", 400, pair=pair, choice="me")["error"]["message"]
    )
    client.post("/api/vote", pair=pair, choice="tie")
    for again in (pair, "made-up", None):
        message = client.post("/api/vote", 400, pair=again, choice="tie")["error"]["message"]
        assert "no such pair" in message


def test_the_names_of_the_models_come_after_the_vote(client, says):
    says(ANSWER)
    says(ANSWER, name="plain")
    shown = json.dumps(client.stream("/api/pair", prompt="Hi", models=["helper", "plain"]))
    assert "helper" not in shown and "plain" not in shown


DIALOGUE = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
]


def test_dialogues_are_saved_edited_deleted_and_read_by_a_stage(client, studio, tmp_path):
    first = client.post("/api/dialogues", messages=DIALOGUE, rating=4)["id"]
    second = client.post("/api/dialogues", messages=DIALOGUE)["id"]
    changed = [DIALOGUE[0], {"role": "assistant", "content": "A small model."}]
    assert client.post("/api/dialogues", messages=changed, rating=5, id=first)["id"] == first
    client.post("/api/dialogues/delete", id=second)
    listed = client.get("/api/dialogues")
    assert [row["id"] for row in listed["dialogues"]] == [first]
    assert listed["dialogues"][0]["rating"] == 5
    assert "question" in listed["guideline"].lower()
    kept = tables.read_lines(studio.notes / "history" / "dialogues.jsonl")
    assert len(kept) == 4, "nothing that was written is lost"
    chats = step("chats", "dialogues.files", {"path": str(studio.notes / "dialogues.jsonl")})
    results = run([chats], tmp_path / "store", quiet=True)
    (row,) = results["chats"].load()
    assert row["messages"][1]["content"] == "A small model.", "only what counts is trained on"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "2 to 100 turns"),
        ({"messages": DIALOGUE[:1]}, "2 to 100 turns"),
        ({"messages": DIALOGUE[::-1]}, "take turns"),
        ({"messages": [{"role": "root", "content": "x"}] * 2}, "needs a role"),
        ({"messages": [DIALOGUE[0], {"role": "assistant", "content": ""}]}, "content must be"),
        ({"messages": DIALOGUE, "rating": 6}, "rating must be"),
        ({"messages": DIALOGUE, "id": "../../x"}, "no dialogue of that id"),
    ],
)
def test_what_is_no_dialogue_is_refused(client, studio, body, message):
    assert message in client.post("/api/dialogues", 400, **body)["error"]["message"]
    assert not (studio.notes / "dialogues.jsonl").exists()


def test_half_a_line_of_a_power_cut_takes_no_other_row_with_it(client, studio):
    first = client.post("/api/dialogues", messages=DIALOGUE)["id"]
    with (studio.notes / "history" / "dialogues.jsonl").open("a") as file:
        file.write('{"id": "half", "mess')
    second = client.post("/api/dialogues", messages=DIALOGUE)["id"]
    assert [row["id"] for row in client.get("/api/dialogues")["dialogues"]] == [first, second]
    written = tables.read_lines(studio.notes / "dialogues.jsonl")
    assert [row["id"] for row in written] == [first, second]


def test_a_vote_that_cannot_be_written_can_be_cast_again(client, says, studio, monkeypatch):
    from llmstages.studio.notes import Notes

    says(ANSWER)
    says(ANSWER, name="plain")
    pair = client.stream("/api/pair", prompt="Hi", models=["helper", "plain"])[-1]["pair"]

    def full(self, line):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Notes, "_append", full)
        refused = client.post("/api/vote", 400, pair=pair, choice="first")
        assert "No space left" in refused["error"]["message"]
    assert client.post("/api/vote", pair=pair, choice="first")["votes"] == 1


def test_a_prompt_of_the_run_is_drawn(client):
    drawn = client.get("/api/prompt")
    assert drawn["prompt"] and drawn["step"] == "questions"
