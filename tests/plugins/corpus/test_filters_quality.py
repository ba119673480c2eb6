"""The four quality filters, rule by rule: values counted by hand or by plain code, and limits."""

import random
from collections import Counter

import pytest

from llmstages.core.errors import StageError
from llmstages.data.filtering import Drop, Edit

from .test_filters import PROSE, apply, measured, rule

STORY = "\n".join(
    [
        PROSE,
        "A neighbour came by with a basket of apples and asked whether the road to the mill was "
        "open again after the flood.",
        "Nobody could say, and so they went to look for themselves. The water had gone, but the "
        "bridge was not safe to cross.",
    ]
)


def shuffled(count):
    return " ".join(f"w{(i * 7919) % 10007}" for i in range(count))


@pytest.mark.parametrize(
    "text, expected",
    [
        (PROSE, None),
        ("Too short to be a page.", "short_doc"),
        ("a b c d " * 30, "below_avg_threshold"),
        ("incomprehensibilities " * 60, "above_avg_threshold"),
        (PROSE + " # word" * 40, "too_many_hashes"),
        (PROSE + " so ..." * 40, "too_many_ellipsis"),
        (PROSE + " so …" * 40, "too_many_ellipsis"),
        ("\n".join(f"- {PROSE}" for _ in range(3)), "too_many_bullets"),
        ("\n".join(f"  • {PROSE}" for _ in range(3)), "too_many_bullets"),
        ("\n".join(f"{PROSE} ..." for _ in range(3)), "too_many_end_ellipsis"),
        (PROSE + " 1200 , 1300 ;" * 40, "below_alpha_threshold"),
        (" ".join(["cheap", "watches", "discount", "pills"] * 15), "enough_stop_words"),
        (PROSE.replace("the", "THE").upper(), "enough_stop_words"),
        ("", "short_doc"),
    ],
)
def test_gopher_quality(text, expected):
    assert rule("gopher_quality", text) == expected


def test_gopher_quality_values_by_hand():
    # Words: # The cat sat ... on the mat , and 3 dogs looked … - at it
    text = "# The cat sat ... on the mat,\nand 3 dogs looked…\n- at it\n"
    found = {name: check.value for name, check in measured("gopher_quality", text).items()}
    assert found == {
        "short_doc": 12,
        "long_doc": 12,
        "below_avg_threshold": pytest.approx(35 / 12),
        "above_avg_threshold": pytest.approx(35 / 12),
        "too_many_hashes": pytest.approx(1 / 17),
        "too_many_ellipsis": pytest.approx(2 / 17),
        "too_many_bullets": pytest.approx(1 / 3),
        "too_many_end_ellipsis": pytest.approx(1 / 3),
        "below_alpha_threshold": pytest.approx(11 / 17),
        "enough_stop_words": 2,
    }


def test_gopher_quality_limits_are_options_and_values_are_reported():
    short = "The cat sat on the mat and looked to the door."
    assert (
        rule("gopher_quality", short, min_words=11) is None
        and rule("gopher_quality", short, min_words=12) == "short_doc"
    )
    assert apply("gopher_quality", [short]) == [Drop("short_doc", 11, ">= 50 words")]
    assert rule("gopher_quality", PROSE, max_words=10) == "long_doc"
    hindi = "यह एक छोटी कहानी है। " * 15
    assert rule("gopher_quality", hindi, stop_words=["है", "यह"]) is None


@pytest.mark.parametrize(
    "text, expected",
    [
        (PROSE, None),
        ("", None),
        ("word", None),
        (shuffled(300), None),
        ("\n\n".join([PROSE] * 3), "dup_para_frac"),
        ("\n\n".join([shuffled(60)] * 2 + [f"{i} of it" for i in range(8)]), "dup_para_char_frac"),
        ("\n".join([PROSE, "x y", "x y", PROSE[:50]] + ["x y"] * 3), "dup_line_frac"),
        (
            "\n".join([shuffled(40)] * 2 + [f"line {i} of it" for i in range(8)]),
            "dup_line_char_frac",
        ),
        ("spam offer " * 50, "top_2_gram"),
        (shuffled(60) + " " + shuffled(60), "duplicated_5_n_grams"),
        (
            " ".join(
                f"aa bb cc {shuffled(400).split()[i]}{'' if i % 2 else ' xyz'}" for i in range(60)
            ),
            "top_2_gram",
        ),
    ],
)
def test_gopher_repetition(text, expected):
    assert rule("gopher_repetition", text) == expected


def plain_repetition(text):
    """The rules of Gopher with strings, as the paper says and datatrove counts."""
    size, words, found = len(text), text.split(), {}
    for name, parts in (
        ("dup_para", text.strip().split("\n\n")),
        ("dup_line", [line for line in text.split("\n") if line]),
    ):
        again = [part for i, part in enumerate(parts) if part in parts[:i]]
        found[f"{name}_frac"], found[f"{name}_char_frac"] = (
            len(again) / len(parts),
            sum(map(len, again)) / size,
        )
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        gram, count = grams.most_common(1)[0]
        found[f"top_{n}_gram"] = len(gram) * count / size
    for n in range(5, 11):
        seen, total, at = set(), 0, 0
        while at <= len(words) - n:
            gram = "".join(words[at : at + n])
            at, total = (at + n, total + len(gram)) if gram in seen else (at + 1, total)
            seen.add(gram)
        found[f"duplicated_{n}_n_grams"] = total / size
    return found


def test_repetition_counts_as_plain_code_does():
    rng = random.Random(0)
    for _ in range(40):
        words = [f"w{rng.randrange(30)}" for _ in range(40)]
        words += words[5 : rng.randrange(6, 30)] + [f"v{i}" for i in range(rng.randrange(40))]
        blanks = [rng.choice([" "] * 6 + ["\n", "\n\n"]) for _ in words]
        text = "".join(word + blank for word, blank in zip(words, blanks, strict=True)).strip()
        found = {
            name: check.value
            for name, check in measured("gopher_repetition", text, words="whitespace").items()
        }
        assert found == pytest.approx(plain_repetition(text))
    with pytest.raises(StageError, match="max_top_ngrams needs 3 values"):
        apply("gopher_repetition", [], max_top_ngrams=[0.2])


def test_repetition_drops_by_the_first_limit_broken():
    text = "spam offer " * 50
    checks = measured("gopher_repetition", text)
    # All rules are measured, also after the broken one.
    assert checks["top_2_gram"].broken and checks["duplicated_10_n_grams"].broken
    assert apply("gopher_repetition", [text])[0] == Drop(
        "top_2_gram", checks["top_2_gram"].value, "<= 0.2"
    )
    assert rule("gopher_repetition", text, max_top_ngrams=[9, 9, 9]) == "duplicated_5_n_grams"
    assert rule("gopher_repetition", text, max_top_ngrams=[9] * 3, max_all_ngrams=[1] * 6) is None


@pytest.mark.parametrize(
    "line",
    [
        "Please enable JavaScript to see this.",
        "Two words",
        "Read our Terms of Use for more of it.",
        "This site uses cookies to work well.",
        "See the privacy policy of this site.",
        "x" * 1001 + " is a long word",
    ],
)
def test_c4_removes_lines(line):
    text = STORY.replace("\n", f"\n{line}\n", 1)
    assert apply("c4", [text]) == [Edit(STORY, 1)]


@pytest.mark.parametrize(
    "text, expected",
    [
        (STORY, None),
        (STORY + "\nLorem Ipsum dolor sit amet.", "lorem_ipsum"),
        (STORY + "\nint main() { return 0; }", "curly_bracket"),
        ("One sentence is here. And a second one is.", "too_few_sentences"),
        ("", "too_few_sentences"),
    ],
)
def test_c4_drops(text, expected):
    assert rule("c4", text) == expected


def test_c4_rules_are_switches():
    text = STORY + "\nIt was said [12] so [edit] by him [citation needed] there."
    assert apply("c4", [text])[0].text.endswith("\nIt was said  so  by him  there.")
    assert apply("c4", [text], citations=False) == [None]
    assert apply("c4", [STORY + "\nA menu without an end"], terminal_punctuation=True) == [
        Edit(STORY, 1)
    ]
    assert apply("c4", [STORY + "\nNo end to it ..."], terminal_punctuation=True) == [
        Edit(STORY, 1)
    ]
    assert apply("c4", [STORY + "\nTwo words"], min_words_per_line=2) == [None]
    kept = {
        "lorem_ipsum": "Lorem ipsum dolor sit amet.",
        "curly_bracket": "A set { 1, 2 } of two.",
        "javascript": "He wrote JavaScript all day.",
        "policy": "The privacy policy of kings.",
    }
    for field, line in kept.items():
        assert apply("c4", [f"{STORY}\n{line}"], **{field: False}) == [None]
    assert apply("c4", ["word " * 3 + "y" * 1001 + "\n" + STORY], max_word_length=0) == [None]
    assert apply("c4", ["Only one sentence is here."], min_sentences=1) == [None]


def test_c4_measures_the_sentences_left():
    check = measured(
        "c4", "One is here. Two are here! Are three here?\nTwo words\nThis one uses cookies."
    )["too_few_sentences"]
    assert (check.value, check.limit, check.broken) == (3, ">= 5 sentences", True)


@pytest.mark.parametrize(
    "text, expected",
    [
        (STORY, None),
        ("\n".join(f"a line of some thirty characters {i}" for i in range(9)), "line_punct_ratio"),
        ("\n".join(f"Short line {i}." for i in range(9)), "short_line_ratio"),
        (f"{PROSE}\n{PROSE}", "char_dup_ratio"),
        (PROSE + "\n" * 40 + PROSE[:80] + ".", "list_ratio"),
        ("", "line_punct_ratio"),
    ],
)
def test_fineweb_quality(text, expected):
    assert rule("fineweb_quality", text) == expected


def test_fineweb_quality_values_by_hand():
    text = "Ends well.\nNo end\n\nNo end\nEnds in Hindi।\n" + "x" * 31
    found = {
        name: check.value
        for name, check in measured("fineweb_quality", text, words="whitespace").items()
    }
    assert found == {
        "line_punct_ratio": pytest.approx(2 / 5),
        "short_line_ratio": pytest.approx(4 / 5),
        "char_dup_ratio": pytest.approx(6 / (10 + 6 + 6 + 14 + 31)),
        "list_ratio": pytest.approx(5 / 10),
    }
    limits = {
        "min_punctuated_lines": 0.4,
        "max_short_lines": 0.8,
        "max_duplicate_characters": 0.1,
        "max_newlines_per_word": 0.5,
    }
    assert apply("fineweb_quality", [text], words="whitespace", **limits) == [None]
    assert apply(
        "fineweb_quality", [text], words="whitespace", **limits | {"max_short_lines": 0.7}
    ) == [Drop("short_line_ratio", 0.8, "<= 0.7")]


MIXED = [
    PROSE,
    STORY,
    "Don't say it's John's: the U.S. (and the U.K.) aren't e.g. 10km apart...",
    "He paid $3.50, i.e. 20% more--or less?",
    "A well-known mother-in-law's state-of-the-art e-mail: anna@mail.example!",
    "I'd've said “yes”, you'll see; we're at 5 p.m. on Jan. 3rd.",
]


def test_fast_words_are_nearly_those_of_spacy():
    pytest.importorskip("spacy")
    from llmstages.data.words import splitter

    pairs = [(splitter("spacy").words(text), splitter("fast").words(text)) for text in MIXED]
    common = sum((Counter(ours) & Counter(theirs)).total() for theirs, ours in pairs)
    assert common / sum(max(len(ours), len(theirs)) for theirs, ours in pairs) > 0.97
    for name in ("gopher_quality", "gopher_repetition", "fineweb_quality", "c4"):
        assert apply(name, MIXED[:2], words="spacy") == apply(name, MIXED[:2])
    assert splitter("spacy").sentences(STORY) == splitter("fast").sentences(STORY) == 6
