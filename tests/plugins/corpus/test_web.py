"""corpus.web end to end on small pages: nothing is lost, and processes change nothing."""

import json
import random

import pytest

from llmstages.core import registry
from llmstages.core.config import build_config
from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import tables
from llmstages.data.filtering import Edit
from llmstages.plugins.corpus import filter_pipeline, web
from llmstages.plugins.corpus.extraction import decode
from llmstages.plugins.corpus.web import Web

from .test_filters import GERMAN, PROSE

DEFAULT = {name: {"use": name} for name in web.DEFAULT}


def html(*paragraphs, title="A page"):
    body = "".join(f"<p>{p}</p>" for p in paragraphs)
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title></head>"
        "<body><nav><ul><li><a href='/'>Home</a></li></ul></nav>"
        f"<main><article><h1>{title}</h1>{body}</article></main>"
        "<footer>Copyright. All rights reserved.</footer></body></html>"
    ).encode()


WORDS = (
    "the of and to a in that it was for with his they had at be this from have not by one were all "
    "she when there which their said if will each about how up out them then many some so these "
    "would other into has more her two like him see time could no make than first been long down "
    "way little man old house river bread lamp bird coat garden winter summer town letter story"
).split()


def story(number):
    """Six sentences that share no phrase with those of another number."""
    rng = random.Random(number)
    return [f"{' '.join(rng.choices(WORDS, k=18)).capitalize()}." for _ in range(6)]


def documents(folder, pages, gold=()):
    """A documents artifact from (url, body, media) rows."""
    folder.mkdir()
    tables.save(
        [
            {"id": f"p:{i}", "url": url, "body": body, "media": media}
            for i, (url, body, media) in enumerate(pages)
        ],
        folder / "data",
    )
    if gold:
        tables.write_lines(folder / "gold.jsonl", gold)
    return Artifact("pages", "documents", folder, "x")


def table(folder):
    """Rows of a table; datasets cannot load one without rows."""
    return tables.load(folder) if list(folder.glob("*.arrow")) else []


def run(source, out, wires=None, **values):
    """(metrics, data, dropped, funnel) of the stage."""
    work = out.with_name(f"{out.name}.work")
    for folder in (out, work):
        folder.mkdir()
    inputs = {"documents": source, **(wires or {})}
    metrics = Web().run(Web.Config(**values), Context("corpus", out, work, inputs))
    return (
        metrics,
        tables.load(out / "data"),
        table(out / "dropped"),
        json.loads((out / "funnel.json").read_text()),
    )


MIXED = [
    ("http://a.example/1", html(*story(1)), "text/html"),
    ("http://casino.example/2", html(*story(2)), "text/html"),
    (
        "http://a.example/3",
        html(*[GERMAN + " Dann gingen sie nach Hause."] * 2, GERMAN),
        "text/html",
    ),
    ("http://a.example/4", b"", "text/html"),
    ("http://a.example/5", html("Under construction."), "text/html"),
    ("http://a.example/6", html(*story(1)), "text/html"),
    (
        "http://a.example/7",
        html(*story(3), "Mail me at anna@mail.example.org or +1 212 555 0187."),
        "text/html",
    ),
    ("http://a.example/8", html(*story(3), "A copy of it."), "text/html"),
    ("http://a.example/9", PROSE.encode(), "text/plain"),
    ("http://a.example/10", html("X" * 20 + "\ufffd" * 30 + PROSE), "text/html"),
]
GOLD = [
    {"url": url, "keep": i in (0, 6, 8), "rule": rule}
    for i, ((url, _, _), rule) in enumerate(
        zip(
            MIXED,
            (
                "",
                "url",
                "language",
                "empty",
                "quality",
                "exact_dedup",
                "",
                "minhash_dedup",
                "",
                "encoding",
            ),
            strict=True,
        )
    )
]


def test_every_page_ends_in_one_place_with_its_reason(tmp_path):
    metrics, data, dropped, funnel = run(
        documents(tmp_path / "in", MIXED, GOLD), tmp_path / "out", filters=DEFAULT
    )
    assert data["id"][:] == ["p:0", "p:6", "p:8"]
    assert {row["id"]: row["rule"] for row in dropped} == {
        "p:1": "url.word",
        "p:2": "language",
        "p:3": "extract.empty",
        "p:4": "gopher_repetition.top_3_gram",
        "p:5": "exact_dedup",
        "p:7": "minhash_dedup",
        "p:9": "extract.encoding",
    }
    assert (
        metrics["read"] == 10 == metrics["kept"] + metrics["dropped"]
        and sum(row["dropped"] for row in funnel) == 7
    )
    assert [row["rule"].split(".")[0] for row in funnel if row["kind"] == "group"] == [
        "exact_dedup",
        "minhash_dedup",
    ]
    assert (
        "[email]" in data["text"][1]
        and "[phone]" in data["text"][1]
        and funnel[-1] == {"rule": "pii", "kind": "edit", "seen": 3, "dropped": 0, "edited": 2}
    )
    assert "Copyright" not in data["text"][0] and "Home" not in data["text"][0]
    german = next(row for row in dropped if row["id"] == "p:2")
    assert (
        german["value"].startswith("de ")
        and "0.65" in german["limit"]
        and "Müller" in german["excerpt"]
    )
    assert (metrics["gold_precision"], metrics["gold_recall"]) == (1.0, 1.0)
    gold = json.loads((tmp_path / "out" / "gold.json").read_text())
    assert (
        gold["quality"] == {"precision": 1.0, "recall": 1.0, "n": 1} and gold["overall"]["n"] == 7
    )


def test_personal_strings_that_survive_are_counted():
    from llmstages.plugins.corpus.gold import personal_removed

    gold = [
        {"url": "a", "personal": ["x@y.com", "1.2.3.4"]},
        {"url": "b", "personal": ["z@y.com"]},
        {"url": "c", "personal": ["gone"]},
    ]
    assert personal_removed(
        gold, {"a": "write to [email] or 1.2.3.4", "b": "[email]"}
    ) == pytest.approx(2 / 3, abs=1e-4)
    assert personal_removed(gold, {}) is None


def test_gold_counts_misses_and_false_alarms(tmp_path):
    gold = [
        {"url": "http://a.example/1", "keep": False, "rule": "language"},
        {"url": "http://a.example/4", "keep": True, "rule": ""},
        {"url": "http://elsewhere.example", "keep": False, "rule": "url"},
    ]
    metrics, *_ = run(documents(tmp_path / "in", MIXED, gold), tmp_path / "out")
    assert (metrics["gold_precision"], metrics["gold_recall"]) == (0.0, 0.0)
    assert json.loads((tmp_path / "out" / "gold.json").read_text())["language"] == {
        "precision": None,
        "recall": 0.0,
        "n": 1,
    }


def test_the_number_of_processes_changes_no_byte(tmp_path):
    pages = [(f"http://a.example/{i}", html(*story(i)), "text/html") for i in range(40)] + MIXED[:5]
    source = documents(tmp_path / "in", pages)
    for workers in (1, 2, 3):
        run(source, tmp_path / f"out{workers}", filters=DEFAULT, workers=workers)
    folders = [
        {p.relative_to(f): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in (tmp_path / f"out{w}" for w in (1, 2, 3))
    ]
    assert folders[0] == folders[1] == folders[2]


def test_paragraphs_become_documents_after_the_filters(tmp_path):
    metrics, data, _, funnel = run(
        documents(tmp_path / "in", MIXED[:1]),
        tmp_path / "out",
        filters=DEFAULT,
        split="paragraph",
        min_paragraph_words=3,
    )
    assert data["text"][:] == story(1) and data["id"][:] == [f"p:0#{k}" for k in range(1, 7)]
    assert metrics["kept"] == 1 and metrics["documents"] == 6 and metrics["paragraphs_skipped"] == 1
    assert funnel[-1] == {
        "rule": "split.min_paragraph_words",
        "kind": "split",
        "seen": 7,
        "dropped": 1,
        "edited": 0,
    }


def test_line_dedup_is_a_switch(tmp_path):
    pages = [
        (
            f"http://a.example/{i}",
            html(*story(i), "By order of the council, nobody may sell honey on a Sunday."),
            "text/html",
        )
        for i in range(8)
    ]
    source = documents(tmp_path / "in", pages)
    _, with_, _, _ = run(source, tmp_path / "a", filters=DEFAULT)
    metrics, without, _, funnel = run(
        source, tmp_path / "b", filters={**DEFAULT, "line_dedup": {"use": "line_dedup"}}
    )
    assert all("honey" in text for text in with_["text"]) and not any(
        "honey" in text for text in without["text"]
    )
    assert metrics["kept"] == 8 and funnel[-1]["edited"] >= 8


def test_documents_that_hold_an_evaluation_are_dropped_with_the_words_they_share(tmp_path):
    folder = tmp_path / "problems-1"
    folder.mkdir()
    tables.save(
        [
            {
                "prompt": [{"role": "user", "content": story(5)[1], "tool": ""}],
                "answer": "forty-two",
                "task": "t",
                "group": "g",
                "meta": "{}",
            }
        ],
        folder / "data",
    )
    source = documents(
        tmp_path / "in", [(f"http://a/{i}", html(*story(i)), "text/html") for i in range(8)]
    )
    filters = {"decontaminate": {"use": "decontaminate", "questions": True}}
    with pytest.raises(StageError, match="needs texts to look for"):
        run(source, tmp_path / "a", filters=filters)
    wires = {"evaluations": (Artifact("problems", "problems", folder, "1"),)}
    _, _, dropped, _ = run(source, tmp_path / "b", wires=wires, filters=filters)
    assert [row["id"] for row in dropped] == ["p:5"] and "problems" in dropped[0]["value"]


class Odd:
    """A filter that misbehaves in a chosen way."""

    kind, version = "judge", "1"

    def __init__(self, how):
        self.how = how

    def judge(self, documents):
        if self.how == "few":
            return []
        if self.how == "bool":
            return [True for _ in documents]
        if self.how == "raise" or any(story(1)[0] in d.text for d in documents):
            raise ValueError("no idea")
        return [Edit(d.text.upper(), 1) for d in documents]


def misbehave(monkeypatch, how):
    monkeypatch.setattr(web, "component_config", lambda group, spec: (Odd, None))
    monkeypatch.setattr(filter_pipeline, "load_component", lambda group, spec: Odd(how))
    monkeypatch.setattr(filter_pipeline, "_filters", {})


@pytest.mark.parametrize(
    "how, message",
    [
        ("few", "gave 0 verdicts for"),
        ("raise", "failed on 8 of 8 documents"),
        ("bool", "gave a verdict of type bool"),
    ],
)
def test_a_broken_filter_stops_the_stage(tmp_path, monkeypatch, how, message):
    misbehave(monkeypatch, how)
    with pytest.raises(StageError, match=message):
        run(
            documents(
                tmp_path / "in", [(f"http://a/{i}", html(*story(i)), "text/html") for i in range(8)]
            ),
            tmp_path / "out",
            filters={"odd": {"use": "odd"}},
        )


def test_a_filter_that_fails_on_one_page_costs_that_page_and_says_so(tmp_path, monkeypatch):
    misbehave(monkeypatch, "")
    pages = [(f"http://a/{i}", html(*story(i)), "text/html") for i in range(8)]
    _, data, dropped, _ = run(
        documents(tmp_path / "in", pages), tmp_path / "out", filters={"odd": {"use": "odd"}}
    )
    assert (
        dropped["rule"][:] == ["odd.error"]
        and dropped["value"][0] == "ValueError: no idea"
        and len(data) == 7
    )
    assert data["text"][0].isupper()


def test_an_empty_corpus_is_an_error_that_names_the_strictest_rule(tmp_path):
    with pytest.raises(
        StageError,
        match="no document is left of 1. The rule gopher_quality.short_doc dropped most: 1 of",
    ):
        run(
            documents(tmp_path / "in", MIXED[4:5]),
            tmp_path / "out",
            filters={"gopher_quality": {"use": "gopher_quality"}},
        )


@pytest.mark.parametrize(
    "body, declared, expected",
    [
        ("größer".encode(), "latin-1", "größer"),
        ("größer".encode("latin-1"), "iso-8859-1", "größer"),
        ("“größer”".encode("cp1252"), "latin1", "“größer”"),
        ("größer".encode("utf-16"), "", "größer"),
        (b"\xef\xbb\xbfgr", "", "gr"),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本"),
        (
            b'<meta charset="windows-1251">' + "Привет".encode("cp1251"),
            "",
            '<meta charset="windows-1251">Привет',
        ),
        (f"{GERMAN * 5}".encode("latin-1"), "utf-8", GERMAN * 5),
        ("größer ä ö ü".encode() + b"\xff", "", "größer ä ö ü\ufffd"),
        (b"x" * 50 + b"\xff\xfe\xc0\xf8\x81" * 20, "utf-8", "x" * 50 + "\ufffd" * 100),
        ("größer".encode("latin-1"), "no-such-charset", "gr\ufffd\ufffder"),
    ],
)
def test_decoding(body, declared, expected):
    assert decode(body, declared) == expected


def test_presets_compose_and_none_has_no_filter():
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    from llmstages.pipeline import compose

    def preset(name):
        with compose._hydra():
            values = OmegaConf.to_container(hydra_compose(None, [f"+corpus={name}"]).corpus)
        return {key: value for key, value in values.items() if key != "stage"}

    assert preset("none")["filters"] == {} and list(preset("web")["filters"]) == list(web.DEFAULT)
    assert preset("short")["filters"]["gopher_quality"]["min_words"] == 20
    assert preset("docs")["words"] == "whitespace"
    fineweb = preset("fineweb")
    assert (
        fineweb["extractors"]["html"]["favor_precision"]
        and "exact_dedup" not in fineweb["filters"]
        and fineweb["filters"]["pii"]["phone"] == ""
    )
    for name in ("web", "none", "short", "fineweb", "docs"):
        config = build_config(Web.Config, preset(name), "corpus")
        assert all(registry.load_component("filters", spec) for spec in config.filters.values())
