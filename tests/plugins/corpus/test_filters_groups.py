"""Filters that compare documents: exact and near duplicates, lines that many pages have."""

import random

import pytest

from llmstages.data.filtering import Drop, Edit
from llmstages.plugins.corpus.filters.duplicates import Duplicates, equal, join

from .test_filters import PROSE, apply, documents, make, signed

LIMIT = "no group of 8 hashes equal to one before it"


def words(number, count):
    rng = random.Random(number)
    return ["".join(rng.choices("abcdefghij", k=6)) for _ in range(count)]


def jaccard(one, two, n=5):
    grams = [{tuple(text[i : i + n]) for i in range(len(text) - n + 1)} for text in (one, two)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def pair(number, share, count=300):
    """Two texts (word lists) of which about ``share`` of the words, in one piece, are the same."""
    one, kept = words(number, count), int(share * count)
    return one, one[:kept] + words(-number - 1, count - kept)


def test_exact_dedup_keeps_the_first():
    texts = [
        PROSE,
        PROSE.upper() + "\n",
        PROSE + " More.",
        PROSE.replace(" ", "\n"),
        PROSE + "  More.",
    ]
    assert [v and v.value for v in apply("exact_dedup", texts)] == [
        None,
        "same as d0",
        None,
        "same as d0",
        "same as d2",
    ]
    assert apply("exact_dedup", [PROSE, PROSE.upper()], ignore_case=False) == [None, None]
    assert apply("exact_dedup", []) == []


@pytest.mark.parametrize("name", ["exact_dedup", "minhash_dedup", "line_dedup"])
def test_batches_change_nothing(name):
    texts = [" ".join(words(i % 5, 40)) + f"\nMenu and login\nline {i % 5}" for i in range(20)] + [
        "",
        "one",
    ]
    whole = apply(name, texts)
    assert any(whole) and apply(name, texts, batch=1) == apply(name, texts, batch=3) == whole
    filter, docs = make(name), documents(texts)
    signatures = filter.sign(docs)
    assert all(isinstance(signature, bytes) for signature in signatures)
    assert name == "line_dedup" or len(set(map(len, signatures))) == 1


def test_minhash_finds_near_copies_alone():
    near, other = (
        PROSE.replace("fresh bread", "old bread") + " Copy 7.",
        " ".join(reversed(PROSE.split())),
    )
    verdicts = apply(
        "minhash_dedup", [PROSE * 2, PROSE + near, other, "", "one two", PROSE, "...", "One, two!"]
    )
    assert [v is None for v in verdicts] == [True, False, True, True, True, False, True, False]
    assert (
        verdicts[1].value.endswith(" like d0")
        and 0.8 < float(verdicts[1].value.split()[0]) < 1
        and verdicts[1].limit == LIMIT
    )
    assert verdicts[7] == Drop("", "1.00 like d4", LIMIT)
    assert apply("minhash_dedup", [PROSE * 2, PROSE + near], min_similarity=0.99) == [None, None]
    assert apply("minhash_dedup", []) == []


def test_minhash_estimates_jaccard():
    """The mean error over 40 pairs of all similarities is far below that of one (0.03)."""
    import numpy as np

    filter = make("minhash_dedup", bands=32, rows=8)
    errors = []
    for number in range(40):
        texts = pair(number, number / 39)
        rows = np.frombuffer(
            b"".join(filter.sign(documents([" ".join(text) for text in texts]))), "<u4"
        ).reshape(2, -1)
        errors.append(float((rows[0] == rows[1]).mean()) - jaccard(*texts))
    assert abs(sum(errors) / len(errors)) < 0.015 and max(map(abs, errors)) < 0.12


def test_minhash_finds_what_the_bands_promise():
    """Recall by true similarity, against 1 - (1 - s**8)**14 of the paper."""
    texts, truth = [], []
    for number in range(120):
        one, two = pair(number, 0.75 + 0.25 * (number % 2), 200)
        if number % 2:  # a few words changed here and there
            for i in random.Random(number).sample(range(len(two)), 5):
                two[i] = "changed"
        texts += [" ".join(one), " ".join(two)]
        truth.append(jaccard(one, two))
    found = [verdict is not None for verdict in apply("minhash_dedup", texts)[1::2]]
    assert not any(apply("minhash_dedup", texts)[0::2])
    promised = sum(1 - (1 - s**8) ** 14 for s in truth)
    assert 30 < promised < 90 and abs(sum(found) - promised) < 4 * (len(truth) * 0.2) ** 0.5


def test_clusters_are_connected_through_others():
    """Of a chain of texts, each near the next and the last far from the first, one stays."""
    source = words(1, 400)
    chain = [" ".join(source[i * 12 : i * 12 + 250]) for i in range(12)]
    verdicts = apply(
        "minhash_dedup", [*reversed(chain), "another text that has nothing to do with these"]
    )
    assert verdicts[0] is None and all(verdicts[1:12]) and verdicts[12] is None
    assert float(verdicts[11].value.split()[0]) < 0.6 and verdicts[11].value.endswith("like d0")


def test_minhash_is_the_same_everywhere():
    import numpy as np

    one, two = make("minhash_dedup").sign(
        documents(
            ["Numbers 12 and, accénts of the village!", "numbers 7 AND accents - of (the) village"]
        )
    )
    assert one == two
    first = np.frombuffer(make("minhash_dedup").sign(documents([PROSE]))[0], "<u4")[:3].tolist()
    # A change here changes every corpus: bump the filter's version.
    assert first == [30230374, 44257286, 32395050]
    assert make("minhash_dedup", hash_seed=2).sign(documents([PROSE])) != make(
        "minhash_dedup"
    ).sign(documents([PROSE]))


def test_signatures_may_be_a_file_of_many_millions(tmp_path):
    """compare() reads a memory map in blocks, and answers without a text for each document."""
    import numpy as np

    rng, count = np.random.default_rng(0), 30_000
    table = np.memmap(tmp_path / "signatures", np.uint8, "w+", shape=(count, 448))
    table.view("<u4")[:] = rng.integers(0, 2**32, (count, 112), np.uint64)
    table[20_000:] = table[:10_000]
    docs = documents([""] * 3)
    drops = make("minhash_dedup").compare(
        type(signed(docs, [b"a"] * 3))(np.arange(count) * 2, range(count), table)
    )
    assert (
        isinstance(drops, Duplicates)
        and len(drops) == 10_000
        and list(drops)[:2] == [40_000, 40_002]
    )
    assert drops[40_002] == Drop("", "1.00 like 1", LIMIT) and 3 not in drops


def test_equal_and_join_against_plain_code():
    import numpy as np

    rng = random.Random(3)
    for _ in range(30):
        keys = [rng.randrange(12) for _ in range(rng.randrange(1, 40))]
        expected = {(keys.index(key), i) for i, key in enumerate(keys) if keys.index(key) < i}
        assert (
            set(zip(*(found.tolist() for found in equal(np.array(keys, np.uint64))), strict=True))
            == expected
        )
        edges = [(rng.randrange(40), rng.randrange(40)) for _ in range(rng.randrange(40))]
        roots = np.arange(40)
        join(roots, *(np.array([edge[side] for edge in edges], np.int64) for side in (0, 1)))
        plain = list(range(40))
        for a, b in edges:
            low, high = sorted((plain[a], plain[b]))
            plain = [low if label == high else label for label in plain]
        assert roots.tolist() == plain


def test_line_dedup_removes_what_many_pages_have():
    texts = [f"Menu and login\nStory number {i} of the day." for i in range(5)] + [
        "  Menu and login \n"
    ]
    verdicts = apply("line_dedup", texts, max_documents=3)
    assert verdicts[0] == Edit("Story number 0 of the day.", 1) and verdicts[5].rule == "empty"
    assert apply("line_dedup", texts, max_documents=6) == [None] * 6
    assert apply("line_dedup", texts, max_documents=3, min_words=4) == [None] * 6
    once = ["Menu and login\n" * 9, "other"]  # many times on one page is not on many pages
    assert apply("line_dedup", once, max_documents=3) == [None, None]
    assert apply("line_dedup", ["", ""]) == [None, None] and apply("line_dedup", []) == []


def test_line_dedup_counts_in_rounds(monkeypatch):
    from llmstages.plugins.corpus.filters import line_dedup

    texts = ["\n".join(f"line {(i * j) % 11}" for j in range(8)) for i in range(40)]
    whole = apply("line_dedup", texts)
    monkeypatch.setattr(line_dedup, "ROUND", 7)
    assert apply("line_dedup", texts) == whole
