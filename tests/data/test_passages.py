"""Pages in passages: nothing is lost, sizes hold, ids follow from the content."""

from __future__ import annotations

import pytest

from llmstages.data.passages import Page, spans, split

SENTENCE = "The ferryman crosses the river at six. "
TEXTS = {
    "sentences": SENTENCE * 40,
    "paragraphs": "\n\n".join([SENTENCE * 3] * 12),
    "lines": "one line without a full stop\n" * 60,
    "no sentence": "word " * 400,
    "no blank": "x" * 2000,
    "Chinese": "\u949f\u697c\u5efa\u4e8e\u4e00\u516b\u56db\u56db\u5e74\u3002" * 90,
    "Hindi": "\u0928\u0926\u0940 \u0915\u0947 \u0915\u093f\u0928\u093e\u0930\u0947\u0964 " * 60,
    "Arabic": "\u0623\u064a\u0646 \u0627\u0644\u0643\u062a\u0627\u0628\u061f " * 60,
}


@pytest.mark.parametrize("overlap", [0, 80])
@pytest.mark.parametrize("name", TEXTS)
def test_every_character_is_in_a_passage_and_none_is_too_long(name, overlap):
    text = TEXTS[name]
    found = list(spans(text, 300, overlap))
    assert len(found) > 2
    assert all(0 < end - start <= 300 for start, end in found)
    covered = {place for start, end in found for place in range(start, end)}
    assert all(char.isspace() or place in covered for place, char in enumerate(text))
    starts = [start for start, _ in found]
    assert starts == sorted(set(starts))
    repeated = sum(end - start for start, end in found) - len(covered)
    assert repeated <= overlap * len(found)
    if not overlap:
        assert repeated == 0


def test_passages_end_with_sentences_and_overlap_by_whole_ones():
    texts = [passage.text for passage in split(Page(TEXTS["sentences"]), 300, 80)]
    assert all(text.startswith("The ferryman") and text.endswith("six.") for text in texts)
    assert all(text.endswith("six.") for text in (p.text for p in split(Page(SENTENCE * 9), 100)))
    # Two paragraphs do not fit, so each passage is one of them.
    paragraphs = [passage.text for passage in split(Page(TEXTS["paragraphs"]), 200)]
    assert paragraphs == [(SENTENCE * 3).strip()] * 12


def test_a_short_page_stays_as_it_is_and_an_empty_one_has_no_passage():
    page = Page("  Bo Li was born in Ra.\n", "https://example.org", "Bo Li", "7")
    (passage,) = split(page, 100)
    assert (passage.text, passage.start) == (page.text, 0)
    assert (passage.url, passage.title, passage.source) == (page.url, "Bo Li", "7")
    assert passage.id == f"{page.id}:0"
    assert list(split(Page(" \n "), 100)) == []


def test_ids_follow_from_text_and_address_alone():
    assert Page("a", "u", "title", "1").id == Page("a", "u", "other", "2").id
    assert len({Page("a", "u").id, Page("b", "u").id, Page("a", "v").id, Page("a").id}) == 4


def test_a_passage_stands_where_it_says():
    page = Page(TEXTS["paragraphs"] + TEXTS["Chinese"])
    for passage in split(page, 200, 50):
        assert page.text[passage.start :].startswith(passage.text)
