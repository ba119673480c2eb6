"""Questions are made from any text, runs are counted exactly, and memorization is measured."""

from __future__ import annotations

import dataclasses as dc
import json
import random

import numpy as np
import pytest

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.data.token_store import Shard
from llmstages.plugins.evaluate import ngram_index, passages
from llmstages.plugins.evaluate.memorization import Memorization, MemorizationConfig, recited_share
from tests.tiny import perform, saved, saved_model, tiny_tokenizer

POEM = (
    "Slowly the grey heron of Talmor crossed the river while Benik slept, and nobody in Talmor "
    "ever asked where it went that morning."
)
SHORT = MemorizationConfig(
    prompt_tokens=8, answer_tokens=12, per_group=6, per_shots=3, texts=3, text_tokens=24, copied=6
)


def shard_of(*documents):
    starts = np.cumsum([0, *(len(d) for d in documents)])
    return Shard(
        np.concatenate([np.array(d, np.uint16) for d in documents]),
        starts,
        np.arange(len(documents)),
    )


def random_shard(seed, alphabet=4, documents=30):
    rng = random.Random(seed)
    return [
        [rng.randrange(alphabet) for _ in range(rng.randrange(0, 25))] for _ in range(documents)
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13])
def test_equal_runs_have_equal_hashes_and_others_not(length):
    ids = np.array([random.Random(1).randrange(3) for _ in range(500)], np.uint16)
    found = ngram_index.hashes(ids, length)
    texts = [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
    assert len(found) == len(texts)
    assert (
        len(set(found.tolist()))
        == len(set(texts))
        == len(set(zip(found.tolist(), texts, strict=True)))
    )
    assert len(ngram_index.hashes(ids[: length - 1], length)) == 0


@pytest.mark.parametrize("chunk", [7, 64, 1 << 20])
def test_runs_are_counted_within_documents_whatever_the_chunks(monkeypatch, chunk):
    monkeypatch.setattr(ngram_index, "CHUNK", chunk)
    documents, length = random_shard(2), 4
    shard = shard_of(*documents)
    wanted: dict[tuple[int, ...], int] = {}
    for document in documents:
        for i in range(len(document) - length + 1):
            wanted[tuple(document[i : i + length])] = (
                wanted.get(tuple(document[i : i + length]), 0) + 1
            )
    first, often = ngram_index.count_runs(shard, length, 10**9, sample=10**6)
    assert {
        tuple(shard.ids[place : place + length].tolist()): int(n)
        for place, n in zip(first, often, strict=True)
    } == wanted


def test_a_part_of_the_runs_is_counted_at_all_their_places():
    documents = [d * 3 for d in random_shard(3, alphabet=50, documents=200) if d]
    shard = shard_of(*documents)
    places, counts = ngram_index.count_runs(shard, 5, 10**9, sample=10**9)
    everything = dict(zip(places.tolist(), counts.tolist(), strict=True))
    places, counts = ngram_index.count_runs(shard, 5, 10**9, sample=500)
    assert 100 < len(places) < len(everything)
    for place, count in zip(places.tolist(), counts.tolist(), strict=True):
        assert everything[place] == count


@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_the_longest_shared_run_is_that_of_comparing_everything(monkeypatch, chunk):
    monkeypatch.setattr(ngram_index, "CHUNK", chunk)
    documents, rng = random_shard(4), random.Random(5)
    texts = [[rng.randrange(4) for _ in range(rng.randrange(0, 15))] for _ in range(20)] + [
        documents[3],
        [9, 9],
    ]
    have = {
        tuple(d[i:j]) for d in documents for i in range(len(d)) for j in range(i + 1, len(d) + 1)
    }
    wanted = [
        max(
            [
                j - i
                for i in range(len(t))
                for j in range(i + 1, len(t) + 1)
                if tuple(t[i:j]) in have
            ],
            default=0,
        )
        for t in texts
    ]
    assert (
        ngram_index.longest(shard_of(*documents), texts, 10**9) == wanted
        and max(wanted) > 4
        and wanted[-1] == 0
    )


def test_passages_are_beginnings_first_do_not_overlap_and_end_in_whole_words():
    from llmstages.text import chat_format

    texts = [f"{'the cat sat on the mat while a dog ran far ' * 3}{i} {POEM}" for i in range(6)] + [
        f"no {i} " + POEM for i in range(3)
    ]
    tokenizer = tiny_tokenizer()
    shard = shard_of(*chat_format.encode_texts(tokenizer, texts))
    rows = passages.recitations(shard, tokenizer, 6, 14, 2, 10**9, random.Random(0))
    assert {row["group"] for row in rows} > {"4 to 15 copies"}
    beginning = [
        row for row in rows if any(text.startswith(row["prompt"][0]["content"]) for text in texts)
    ]
    assert {row["group"] for row in beginning} >= {"4 to 15 copies", "1 copy"}
    for row in rows:
        joined = row["prompt"][0]["content"] + json.loads(row["meta"])["between"] + row["answer"]
        assert any(joined + " " in text for text in texts), "the answer ends where a word does"
    assert passages.recitations(shard, tokenizer, 400, 400, 2, 10**9, random.Random(0)) == []


def test_names_stand_inside_sentences_and_are_not_given_away():
    texts = [
        POEM,
        *["Then we all walked for many hours over the hills to Marlan. Marlan was closed."] * 12,
    ]
    rows = passages.names(texts, 5, random.Random(0))
    assert {(row["answer"], row["group"]) for row in rows} == {("Marlan", "10 to 99 mentions")}, (
        "Talmor stands too early in its text, or was said before"
    )
    assert all(
        row["answer"] not in row["prompt"][0]["content"]
        and len(row["prompt"][0]["content"]) >= passages.MIN_BEFORE
        for row in rows
    )
    assert (
        passages.names(
            ["no capitals at all in here, only words and words and words"] * 9, 5, random.Random(0)
        )
        == []
    )


def test_lists_show_the_rule_and_ask_for_the_last():
    letters = [a + b + "ane" for a in "bdfglmnprst" for b in "aeiou"]
    rows = passages.examples([" " + " ".join(letters) + " end."] * 2, 6, random.Random(0))
    assert {row["group"] for row in rows} == {
        "0 examples",
        "1 example",
        "2 examples",
        "4 examples",
    } and len(rows) == 24
    for row in rows:
        *shown, asked = row["prompt"][0]["content"].split(" ; ")
        assert asked.endswith(" :") and len(shown) == int(row["group"][0])
        rules = [lambda left: left, str.capitalize, lambda left: left.split(" ")[-1]]
        assert any(
            rule(asked[:-2]) == row["answer"]
            and all(rule(s.split(" : ")[0]) == s.split(" : ")[1] for s in shown)
            for rule in rules
        )
    assert passages.examples(["too few words"], 6, random.Random(0)) == []


def test_the_recited_share_ends_at_the_first_other_word():
    assert [
        recited_share(*pair)
        for pair in (
            ("a b c d", "a b c d"),
            ("a b x d", "a b c d"),
            ("", "a"),
            ("a b", "a b c d"),
            ("a b, c", "a b"),
            ("a, b", "a b"),
            ("ab", "a"),
        )
    ] == [1, 0.5, 0, 0.5, 1, 0, 0]


def test_surprise_is_the_loss_of_the_answer_alone_and_padding_changes_nothing():
    import math

    import torch

    from llmstages.plugins.evaluate.likelihood import bits_per_byte
    from llmstages.text import chat_format
    from tests.tiny import tiny_model

    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()
    pairs = [
        ("the cat sat", " on the mat"),
        ("Bo Li was born in", " Ra"),
        ("where does the fox", " live near the river and far"),
        ("cat " * 200, "sat"),
    ]
    found = bits_per_byte(model, tokenizer, pairs, 3, lambda n: None)
    for (text, rest), bits in zip(pairs[:3], found, strict=False):
        whole, head = (chat_format.document_ids(tokenizer, [t])[0] for t in (text + rest, text))
        assert whole[: len(head)] == head
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        wanted = -sum(float(logs[at - 1, whole[at]]) for at in range(len(head), len(whole)))
        assert bits == pytest.approx(wanted / math.log(2) / len(rest.encode()), rel=1e-4)
    assert 0 < found[3] < 100, "a text longer than the context is cut, not refused"


@pytest.fixture
def corpus(tmp_path):
    rng = random.Random(0)
    words = (
        "the cat sat on the mat where does fox live near river dog ran far Bo Li was born in Ra"
    ).split()
    once = [" ".join(rng.choice(words) for _ in range(30)) + "." for _ in range(40)]
    return saved(
        tmp_path / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": t} for i, t in enumerate([*[POEM] * 20, *once])],
    )


def test_a_model_that_memorized_scores_higher_than_one_that_did_not(tmp_path, corpus, monkeypatch):
    from llmstages.text import chat_format, generate

    plain = generate.generate
    tokens = [tuple(chat_format.document_ids(tiny_tokenizer(), [POEM])[0][1:])]

    def oracle(model, tokenizer, prompts, **how):
        """Continues the poem wherever a prompt is a part of it; the second model says nothing."""
        if model.name_or_path.endswith("blank"):
            return [[] for _ in prompts], [1.0] * len(prompts)
        out = []
        for prompt in prompts:
            body = tuple(prompt[1:])
            at = next(
                (
                    i + len(body)
                    for poem in tokens
                    for i in range(len(poem))
                    if poem[i : i + len(body)] == body
                ),
                None,
            )
            out.append([] if at is None else list(tokens[0][at : at + how["max_new_tokens"]]))
        return out, [1.0] * len(prompts)

    monkeypatch.setattr(generate, "generate", oracle)
    made, metrics = perform(
        Memorization,
        tmp_path / "probed",
        SHORT,
        models=(saved_model(tmp_path / "knows"), saved_model(tmp_path / "blank")),
        corpus=corpus,
    )
    scores = json.loads((made.path / "scores.json").read_text())
    recited = scores["recitation by copies"]
    assert set(recited) == {"1 copy", "16 or more copies"}
    assert (
        recited["16 or more copies"]["knows"]["right"]
        == recited["16 or more copies"]["knows"]["share"]
        == 1.0
    )
    assert recited["1 copy"]["knows"]["bits_per_byte"] > 0
    assert (
        recited["1 copy"]["knows"]["right"] == recited["16 or more copies"]["blank"]["share"] == 0.0
    )
    copied = scores["copied text"]["written freely"]
    assert (
        copied["knows"]["copied"] == 1.0
        and copied["knows"]["longest_mean"] >= 20
        and copied["blank"]["copied"] == 0.0
    )
    assert metrics["recitation by copies/16 or more copies/knows/right"] == 1.0
    assert {row["model"] for row in tables.read_lines(made.path / "answers.jsonl")} == {
        "knows",
        "blank",
    } and plain is not oracle


def test_it_is_repeatable_and_says_what_is_missing(tmp_path, corpus):
    model = saved_model(tmp_path / "random")
    one, _ = perform(Memorization, tmp_path / "one", SHORT, models=(model,), corpus=corpus)
    two, _ = perform(Memorization, tmp_path / "two", SHORT, models=(model,), corpus=corpus)
    for name in ("scores.json", "answers.jsonl", "questions.jsonl"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()
    tiny = saved(tmp_path / "tiny", "corpus", [{"id": "1", "url": "u", "text": "nothing to see"}])
    _, metrics = perform(
        Memorization,
        tmp_path / "none",
        dc.replace(SHORT, texts=0, most_tokens=3),
        models=(model,),
        corpus=tiny,
    )
    said = "\n".join(perform.said)
    assert (
        metrics["questions"] == 0
        and all(
            f"nothing to ask for {kind}" in said for kind in ("recitation", "names", "examples")
        )
        and "most_tokens" in said
    )
    with pytest.raises(StageError, match="no model to ask"):
        perform(Memorization, tmp_path / "nobody", SHORT, models=(), corpus=corpus)
