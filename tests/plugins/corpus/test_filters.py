"""Each filter with a page that must go and one that must stay."""

import pytest

from llmstages.plugins.corpus.filter import Document, Drop, Edit
from llmstages.registry import load_part
from llmstages.stage import StageError

PROSE = ("The old miller went to the market in the morning and bought fresh bread for the children. They had waited that "
         "day by the river, and were glad to be home before the rain. In the evening he told them a story of a king who "
         "lived with two birds in a tower, and nobody in the house wanted to sleep until it came to an end.")
GERMAN = "Der alte Müller ging am Morgen zum Markt und kaufte frisches Brot für die Kinder, die am Fluss gewartet hatten."


def apply(name, texts, **fields):
    """What filter ``name`` says of the texts (or URLs, for url)."""
    documents = [Document(f"d{i}", text if name == "url" else f"http://a.example/{i}", text) for i, text in enumerate(texts)]
    return load_part("filters", {"use": name, **fields}).apply(documents)


def rule(name, text, **fields):
    verdict = apply(name, [text], **fields)[0]
    return verdict.rule if isinstance(verdict, Drop) else verdict


@pytest.mark.parametrize("url, expected", [
    ("https://www.pornhub.com/x", "domain"), ("https://de.bet365.com/", "domain"), ("https://casino-royal.example/page/1", "word"),
    ("https://adult-videos.example/", "word"), ("http://[broken", "invalid"),
    ("https://essex.ac.uk/sussex/adult-education", None), ("https://notpornhub.com.example/", None), ("file:notes.txt", None)])
def test_url(url, expected):
    assert rule("url", url) == expected


def test_url_with_a_list_of_ones_own(tmp_path):
    (tmp_path / "list.txt").write_text("Evil.example  # a domain\nlottery\n")
    given = {"blocklist": str(tmp_path / "list.txt"), "shipped": False}
    assert [rule("url", url, **given) for url in ("http://x.evil.example", "http://a/lottery/1", "http://pornhub.com")] == ["domain", "word", None]
    with pytest.raises(StageError, match="no such file"):
        apply("url", [], blocklist="missing.txt")


def test_language():
    english, german, nothing = apply("language", [PROSE, GERMAN, "1 2 3 4 5"])
    assert english is None and german.value.startswith("de ") and german.limit == "en > 0.65" and isinstance(nothing, Drop)
    assert apply("language", [PROSE, GERMAN], languages=["de"])[1] is None
    assert apply("language", [PROSE, GERMAN], languages=[]) == [None, None]


@pytest.mark.parametrize("text, expected", [
    (PROSE, None), ("Too short to be a page.", "min_words"), ("a b c d " * 30, "word_length"), (PROSE + " # word" * 40, "hashes"),
    (PROSE + " so ..." * 40, "ellipses"), ("\n".join(f"- {PROSE}" for _ in range(3)), "bullet_lines"),
    ("\n".join(f"{PROSE} ..." for _ in range(3)), "ellipsis_lines"), (PROSE + " 1200 , 1300 ;" * 40, "alphabetic"),
    (" ".join(["cheap", "watches", "discount", "pills"] * 15), "stop_words")])
def test_gopher_quality(text, expected):
    assert rule("gopher_quality", text) == expected


def test_gopher_quality_limits_are_options_and_values_are_reported():
    short = "The cat sat on the mat and looked to the door."
    assert rule("gopher_quality", short) == "min_words" and rule("gopher_quality", short, min_words=5) is None
    assert apply("gopher_quality", [short])[0] == Drop("min_words", 11, ">= 50 words")
    hindi = "यह एक छोटी कहानी है। " * 15
    assert rule("gopher_quality", hindi, stop_words=["है", "यह"]) is None


def shuffled(count):
    return " ".join(f"w{(i * 7919) % 10007}" for i in range(count))


@pytest.mark.parametrize("text, expected", [
    (PROSE, None), ("", None), ("word", None), (shuffled(300), None),
    ("\n\n".join([PROSE] * 3), "duplicate_paragraphs"), ("\n".join([PROSE, "x y", "x y", PROSE[:50]] + ["x y"] * 3), "duplicate_lines"),
    ("\n".join([shuffled(40)] * 2 + [f"line {i} of it" for i in range(8)]), "duplicate_line_characters"),
    ("spam offer " * 50, "top_2gram"), (" ".join(f"buy it now {i}" for i in range(60)), "top_2gram"),
    (shuffled(60) + " " + shuffled(60), "all_5grams")])
def test_gopher_repetition(text, expected):
    assert rule("gopher_repetition", text) == expected


def test_repetition_counts_as_the_paper_says():
    """Against a plain implementation with strings, on texts that repeat in parts."""
    import random

    from llmstages.plugins.corpus.filters.gopher_repetition import ALL

    rng = random.Random(0)
    for _ in range(20):
        words = [f"w{rng.randrange(30)}" for _ in range(40)]
        words += words[5:rng.randrange(6, 30)] + [f"v{i}" for i in range(rng.randrange(40))]
        text = " ".join(words)
        for n in ALL:
            seen, total, at = set(), 0, 0
            while at <= len(words) - n:
                gram = tuple(words[at:at + n])
                at, total = (at + n, total + len("".join(gram))) if gram in seen else (at + 1, total)
                seen.add(gram)
            limits = [2.0] * len(ALL)
            limits[ALL.index(n)] = max(total / len(text) - 1e-9, 0.0)
            verdict = apply("gopher_repetition", [text], max_top_ngrams=[2, 2, 2], max_all_ngrams=limits)[0]
            assert (verdict is None) == (total == 0)
            assert total == 0 or verdict.value == pytest.approx(total / len(text))
    with pytest.raises(StageError, match="max_top_ngrams needs 3 values"):
        apply("gopher_repetition", [], max_top_ngrams=[0.2])


def test_exact_dedup_keeps_the_first():
    verdicts = apply("exact_dedup", [PROSE, PROSE.upper() + "\n", PROSE + " More."])
    assert [v and v.value for v in verdicts] == [None, "same as d0", None]
    assert apply("exact_dedup", [PROSE, PROSE.upper()], ignore_case=False) == [None, None]


def test_minhash_dedup_finds_near_copies_alone():
    near, other = PROSE.replace("fresh bread", "old bread") + " Copy 7.", " ".join(reversed(PROSE.split()))
    verdicts = apply("minhash_dedup", [PROSE * 2, (PROSE + near), other, "", "one two", PROSE])
    assert verdicts[0] is None and verdicts[2] is None and verdicts[3] is None and verdicts[4] is None
    assert "like d0" in verdicts[1].value and "like d0" in verdicts[5].value
    assert apply("minhash_dedup", [PROSE * 2, PROSE + near], min_similarity=0.99) == [None, None]


def test_minhash_estimates_jaccard_and_is_the_same_everywhere():
    from llmstages.plugins.corpus.filters.minhash_dedup import MinHashDedup

    filter = MinHashDedup(MinHashDedup.Config(bands=64, rows=8))
    words = [f"{a}{b}{c}" for a in "abcdef" for b in "klmnopqrst" for c in "uvwxyzabcd"]
    one, two = filter.signature(" ".join(words[:500])), filter.signature(" ".join(words[100:]))
    grams = [{tuple(w[i:i + 5]) for i in range(len(w) - 4)} for w in (words[:500], words[100:])]
    assert (one == two).mean() == pytest.approx(len(grams[0] & grams[1]) / len(grams[0] | grams[1]), abs=0.06)
    small = MinHashDedup(MinHashDedup.Config())
    assert small.signature("Numbers 12 and, accents!").tolist() == small.signature("numbers 7 AND accents").tolist()
    assert small.signature(PROSE)[:3].tolist() == [191830664, 7351677, 91880188]  # changes here change every corpus: bump the filter's version


def test_line_dedup_removes_what_many_pages_have():
    texts = [f"Menu and login\nStory number {i} of the day." for i in range(5)] + ["Menu and login"]
    verdicts = apply("line_dedup", texts, max_documents=3)
    assert verdicts[0] == Edit("Story number 0 of the day.", 1) and verdicts[5].rule == "empty"
    assert apply("line_dedup", texts, max_documents=6) == [None] * 6
    assert apply("line_dedup", texts, max_documents=3, min_words=4) == [None] * 6


@pytest.mark.parametrize("text, expected, count", [
    ("Write to anna.b+news@mail.example.org today.", "Write to [email] today.", 1),
    ("From 8.8.8.8 and 51.20.3.4, not 192.168.0.1 or 10.0.0.7.", "From [ip] and [ip], not 192.168.0.1 or 10.0.0.7.", 2),
    ("Call +1 212 555 0187 or (212) 555-0187 or 212-555-0187.", "Call [phone] or [phone] or [phone].", 3),
    ("Call +49 30 1234567 now", "Call [phone] now", 1)])
def test_pii_replaces(text, expected, count):
    verdict = apply("pii", [text])[0]
    assert verdict == Edit(expected, count)
    assert apply("pii", [expected]) == [None]


@pytest.mark.parametrize("text", [
    "On 2020-01-14 and 14.01.2020, at 12:30, prices rose from 1,234,567 to 2 345 678.", "He wrote @anna and a@b.", "version 1.2.3.4 is out",
    "Sums: 123+456=579, 12-34-56, 1999-2024, pi is 3.14159265358979.", "999.1.1.1 is no address", "ISBN 978-3-16-148410-0", "+5 points"])
def test_pii_leaves_alone(text):
    assert apply("pii", [text]) == [None]


def test_pii_kinds_can_be_left_out():
    assert apply("pii", ["a@b.example 8.8.8.8 +49 30 1234567"], phone="", ip="")[0] == Edit("[email] 8.8.8.8 +49 30 1234567", 1)
