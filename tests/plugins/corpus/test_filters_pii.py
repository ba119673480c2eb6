"""Personal data: what must go, what must stay, and names by a pipeline of one's own."""

import pytest

from llmstages.core.errors import StageError
from llmstages.data.filtering import Edit

from .test_filters import apply, make, measured

REPLACED = [
    ("Write to anna.b+news@mail.example.org today.", "Write to [email] today.", 1),
    (
        "...anna@x.example -b@y.co.uk, müller@bär.example mailto:u@v.org?x=1",
        "...[email] -[email], [email] mailto:[email]?x=1",
        4,
    ),
    (
        "From 8.8.8.8 and 51.20.3.4, not 192.168.0.1 or 10.0.0.7.",
        "From [ip] and [ip], not 192.168.0.1 or 10.0.0.7.",
        2,
    ),
    ("Ends at 8.8.8.8. http://1.1.1.1/24 (9.9.9.9)", "Ends at [ip]. http://[ip]/24 ([ip])", 3),
    ("at 2a00:1450:4001:82a::200e. [2001:4860:4860::8888]:53", "at [ip]. [[ip]]:53", 2),
    (
        "Call +1 212 555 0187 or (212) 555-0187 or 212-555-0187.",
        "Call [phone] or [phone] or [phone].",
        3,
    ),
    ("Call +49 30 1234567 now, 1-800-555-0199", "Call [phone] now, [phone]", 2),
    (
        "+33 1 42 68 53 00, +49-30-1234567-0, tel:+4930123456, (+1 (212) 555-0187), "
        "+49 (0)30 123456",
        "[phone], [phone], tel:[phone], ([phone]), [phone]",
        5,
    ),
    ("Call +49 30 1234567 2020 212121", "Call [phone] 212121", 1),
    (
        "IBAN DE89 3704 0044 0532 0130 00 BANK, GB29NWBK60161331926819",
        "IBAN [iban] BANK, [iban]",
        2,
    ),
    ("AT61 1904 3002 3457 3201 BANK; NO93 8601 1117 947", "[iban] BANK; [iban]", 2),
    (
        "4111 1111 1111 1111, 4111111111111111, 3782-822463-10005, 6011000990139424",
        "[card], [card], [card], [card]",
        4,
    ),
]
LEFT = [
    "On 2020-01-14 and 14.01.2020, at 12:30:15, prices rose from 1,234,567 to 2 345 678.",
    "He wrote @anna and a@b, foo@bar_baz, a@b.c.",
    "version 1.2.3.4 is out, v1.2.3.4, Version: 1.2.3.4, lib-1.2.3.4, brotli>=1.2.0.0",
    "Sums: 123+456=579, 12-34-56, 1999-2024, pi is 3.14159265358979.",
    "999.1.1.1 is no address",
    "8.8.8.8.8 neither",
    "ISBN 978-3-16-148410-0",
    "+5 points, +000000120, +1 2 3",
    "Call +123456789012345(12345)1 and keep this text.",
    "Clause 252.227-7013 (c)",
    "std::vector a::b dead::beef fe80::1 ::1 2001:db8::1 00:1a:2b:3c:4d:5e",
    "4111 1111 1111 1112 and 1234567890123456",
    "DE89 3704 0044 0532 0130 01",
    "555-0187",
    "2345 6789 2345 6789 0123",
]


@pytest.mark.parametrize("text, expected, count", REPLACED)
def test_pii_replaces(text, expected, count):
    assert apply("pii", [text]) == [Edit(expected, count)]
    assert apply("pii", [expected]) == [None]


@pytest.mark.parametrize("text", LEFT)
def test_pii_leaves_alone(text):
    assert apply("pii", [text]) == [None]


def test_pii_kinds_can_be_left_out_and_are_counted():
    text = "a@b.example 8.8.8.8 +49 30 1234567 c@d.example 4111111111111111"
    assert apply("pii", [text], phone="", ip="", card="")[0] == Edit(
        "[email] 8.8.8.8 +49 30 1234567 [email] 4111111111111111", 2
    )
    assert apply("pii", [text], email="<mail>")[0].text == "<mail> [ip] [phone] <mail> [card]"
    counts = {kind: check.value for kind, check in measured("pii", text).items()}
    assert counts == {"email": 2, "iban": 0, "card": 1, "ipv6": 0, "ip": 1, "phone": 1}
    assert not any(check.broken for check in measured("pii", text).values())


def test_checksums():
    from llmstages.plugins.corpus.filters import pii_patterns

    for number in range(10):  # of ten numbers that differ in the last digit, one is right
        text = f"411111111111111{number}"
        assert bool(list(pii_patterns.cards(text))) == (number == 1)
    assert (
        sum(
            bool(list(pii_patterns.ibans(f"DE{check:02} 3704 0044 0532 0130 00")))
            for check in range(2, 99)
        )
        == 1
    )


def test_phones_by_region():
    pytest.importorskip("phonenumbers")
    text = "Ruf 030 1234567 an oder +49 30 1234567, am 12.03.2020."
    assert apply("pii", [text]) == [Edit("Ruf 030 1234567 an oder [phone], am 12.03.2020.", 1)]
    assert apply("pii", [text], phone_regions=["DE"]) == [
        Edit("Ruf [phone] an oder [phone], am 12.03.2020.", 2)
    ]
    with pytest.raises(StageError, match="XX is not a region"):
        make("pii", phone_regions=["XX"])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Anna Miller"}, {"label": "ORG", "pattern": "Miller Inc."}]
    )
    folder = tmp_path_factory.mktemp("spacy") / "names"
    nlp.to_disk(folder)
    return str(folder)


def test_names(pipeline):
    text = "I met her and him.\nAnna Miller of Miller Inc. came,\nand Anna Miller left."
    expected = "I met her and him.\n[name] of Miller Inc. came,\nand [name] left."
    assert apply("pii_names", [text, "nobody", ""], model=pipeline) == [
        Edit(expected, 2),
        None,
        None,
    ]
    assert apply("pii_names", [text], model=pipeline, characters=50) == [Edit(expected, 2)]
    assert apply("pii_names", [text], model=pipeline, labels=["ORG"], placeholder="[firm]")[
        0
    ].text.startswith("I met her and him.\nAnna Miller of [firm]")


def test_names_need_a_pipeline(pipeline):
    with pytest.raises(StageError, match="needs pii_names.model"):
        make("pii_names")
    with pytest.raises(StageError, match="spaCy has no such pipeline"):
        apply("pii_names", ["a"], model="missing")
    with pytest.raises(StageError, match="labels is empty"):
        make("pii_names", model=pipeline, labels=[])


def test_names_without_spacy(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(StageError, match=r"pip install 'llmstages\[spacy\]'"):
        apply("pii_names", ["a"], model="missing")


def test_a_long_text_is_cut_between_words():
    from llmstages.plugins.corpus.filters.pii_names import _pieces

    for text in ("a b c " * 50, "x" * 95, "line one\nline two\n" * 9, "", "ab " * 3 + "y" * 40):
        pieces = list(_pieces(text, 10))
        assert "".join(piece for _, piece in pieces) == text and all(
            0 < len(piece) <= 10 for _, piece in pieces
        )
        assert all(text[offset : offset + len(piece)] == piece for offset, piece in pieces)
