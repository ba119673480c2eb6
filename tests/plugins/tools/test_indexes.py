"""Indexes find words in every script and form, the same in each engine, and say what they are."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmstages.core import registry
from llmstages.core.errors import StageError
from llmstages.data.passages import Page, Passage
from llmstages.plugins.tools import index
from llmstages.plugins.tools.indexes import tantivy_index, words
from llmstages.testing import check_index

ENGINES = ("fts5", "tantivy")

# language -> (page, a question that does not repeat it word for word)
SCRIPTS = {
    "Chinese": ("静脉曲张是一种常见的血管疾病，患者的小腿上会出现弯曲的血管。", "什么是血管疾病？"),
    "Chinese, traditional": ("陶窯鎮的鐘樓建於一八四四年。", "鐘樓建於哪一年"),
    "Japanese": ("渡し船の船頭は毎朝六時に川を渡ります。", "船頭は何時に川を渡りますか"),
    "Japanese, half width": ("ｶﾀｶﾅの看板", "カタカナ"),
    "Korean": ("마을의 종탑은 방앗간 주인이 세웠습니다.", "종탑을 누가 세웠나요?"),
    "Thai": ("ทางรถไฟสายเก่าถูกปิดหลังน้ำท่วมใหญ่", "น้ำท่วมเมื่อไร"),
    "Lao": ("ຫໍລະຄັງສູງສາມສິບແມັດ", "ຫໍລະຄັງ"),
    "Khmer": ("ប៉មជួងមានកម្ពស់សាមសិបម៉ែត្រ", "ប៉មជួងនៅឯណា"),
    "Burmese": ("မြစ်ကူးသင်္ဘောသည် နံနက်တိုင်းထွက်သည်", "မြစ်ကူးသင်္ဘော"),
    "Arabic": ("بنى الطحان برج الساعة في المدينة القديمة", "من بنى برجا للساعة في مدينة؟"),
    "Arabic, with vowels": ("كِتَابٌ جَدِيدٌ", "أين الكتاب؟"),
    "Persian": ("کتابخانه بزرگ شهر در کنار رودخانه است", "كتابخانه شهر كجاست"),
    "Hebrew": ("מגדל השעון נבנה בידי הטוחן", "מי בנה את מגדל השעון?"),
    "Hebrew, with vowels": ("סֵפֶר יָשָׁן", "ספר"),
    "Hindi": ("नदी के किनारे घंटाघर खड़ा है", "घंटाघर कहाँ है?"),
    "Bengali": ("ঘড়ির মিনারটি পুরানো", "মিনারটি কোথায়"),
    "Tamil": ("மணிக்கூண்டு ஆற்றின் அருகே உள்ளது", "மணிக்கூண்டு எங்கே"),
    "Greek": ("Ο μυλωνάς έχτισε τον πύργο του ρολογιού", "ΠΟΙΟΣ ΕΧΤΙΣΕ ΤΟΝ ΠΥΡΓΟ;"),
    "Russian": ("Паромщик пересекает реку в шесть часов утра, ещё затемно", "паромщик еще"),
    "Ukrainian": ("Годинникову вежу збудував мірошник", "Хто збудував вежу?"),
    "Vietnamese": ("Tháp chuông được xây dựng năm một nghìn tám trăm", "thap chuong o dau"),
    "Turkish": ("İskele ışıkları gece yanar", "ISKELE ISIKLARI nerede"),
    "Polish": ("Łódź przewoźnika stoi na brzegu", "lodz przewoznika"),
    "German": ("Der Fährmann setzt über die große Straße über", "FAHRMANN GROSSE STRASSE"),
    "Georgian": ("საათის კოშკი მდინარესთან დგას", "სად დგას კოშკი?"),
    "Armenian": ("Ժամացույցի աշտարակը հին է", "ԱՇՏԱՐԱԿԸ"),
    "Amharic": ("የሰዓት ማማው ያረጀ ነው።", "ማማው የት ነው"),
    "English": ("The ferryman of Quay Street crosses the river at six.", "who crosses rivers?"),
    "mixed": ("步2 重跑gen-itgc后五十条悬空引用清零。", "itgc"),
}
PAGES = [page for page, _ in SCRIPTS.values()]


def opened(folder, pages, engine="fts5", **options):
    if engine == "tantivy":
        pytest.importorskip("tantivy")
    options.pop("use", None)
    settings = {name: options.pop(name) for name in ("characters", "overlap") if name in options}
    index.build(folder / "index", pages, {"use": engine, **options}, **settings)
    return index.Index(folder / "index")


@pytest.fixture(scope="module", params=ENGINES)
def every_script(request, tmp_path_factory):
    return opened(tmp_path_factory.mktemp(request.param), PAGES, request.param)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_question_finds_its_page_in_every_script(every_script, name):
    page, question = SCRIPTS[name]
    assert every_script.find(question) == [page]


@pytest.mark.parametrize("query", ["", " ", "?!", "\0", "\ue000", "\u202e", "❤️", "\ud800", "zzz"])
def test_what_has_no_words_of_the_pages_finds_nothing(every_script, query):
    assert every_script.find(query) == []


@pytest.mark.parametrize(
    "query",
    [
        '"ferryman',
        "ferryman OR NOT AND NEAR(",
        "title:ferryman^2 body_words:x",
        "* ferryman * (",
        "ferryman\0ferryman",
        "x" * 100_000 + " ferryman",
        "ferryman " + " ".join(f"w{number}" for number in range(3000)),
        "-ferryman +[a TO b] /x/ \\",
    ],
)
def test_a_query_is_words_and_never_syntax(every_script, query):
    assert every_script.find(query) == [SCRIPTS["English"][0]]


ENGLISH = [
    "Ferries cross the wide rivers of the northern provinces every morning.",
    "The baker opened two bakeries beside the old mill and baked bread.",
    "A clock tower was building up debts until the town council decided.",
    "He who is in the house is not the one that was there before.",
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "query, page",
    [
        ("ferry crossing", 0),
        ("which river is in a province?", 0),
        ("bakery", 1),
        ("debt of councils", 2),
        # Stop words are left out, unless a query has no others.
        ("what is the bakery?", 1),
        ("who is there?", 3),
    ],
)
def test_english_words_are_found_in_other_forms(engine, query, page, tmp_path):
    assert opened(tmp_path, ENGLISH, engine).find(query) == [ENGLISH[page]]


def test_words_as_they_are_where_the_language_is_not_english(tmp_path):
    german = [
        "Die Fähren überqueren jeden Morgen den breiten Fluss und bringen Händler in die Stadt.",
        "Der Bäcker öffnet zwei Bäckereien neben der alten Mühle und backt dort sein Brot.",
    ]
    assert opened(tmp_path, german).find("Bäckerei") == []
    (facts,) = sqlite3.connect(tmp_path / "index/fts5.sqlite").execute("SELECT * FROM facts")
    assert json.loads(facts[0]) == {"languages": ["de"], "stemmed": ""}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_in_english_is_enough_for_its_stems_and_stop_words(engine, tmp_path):
    german = [f"Der Fährmann setzt um {hour} Uhr über den Fluss." for hour in range(20)]
    find = opened(tmp_path, [*german, *ENGLISH], engine).find
    assert find("what is a bakery?") == [ENGLISH[1]]
    assert find("wer setzt um 7 uhr über die") == [german[7]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "language, text, query",
    [
        ("de", "Der Bäcker öffnet zwei Bäckereien.", "Wo ist die Bäckerei?"),
        ("ru", "Паромщики пересекают реки.", "паромщик и река"),
        ("fr", "Les boulangères ouvrent leurs boutiques.", "la boutique"),
        ("es", "Los barqueros cruzaban el río.", "¿quién es el barquero?"),
    ],
)
def test_other_languages_are_stemmed_where_it_is_asked_for(engine, language, text, query, tmp_path):
    pytest.importorskip("Stemmer")
    assert opened(tmp_path, [text, "x"], engine, language=language).find(query) == [text]


@pytest.mark.parametrize("engine", ENGINES)
def test_passages_are_ranked_and_can_be_traced_to_their_page(engine, tmp_path):
    filler = "Nothing of importance happens in this sentence. " * 20
    long = Page(f"{filler}The ferryman keeps bees. {filler}", "https://a.example/1", "Quay", "w:1")
    other = Page(filler, "https://a.example/2", "Mill", "w:2")
    found = opened(tmp_path, [other, long], engine, characters=300).search("who keeps bees", 5)
    assert "The ferryman keeps bees." in found[0].text
    assert found[0].id.startswith(f"{long.id}:") and found[0].id != f"{long.id}:0"
    assert long.text[found[0].start :].startswith(found[0].text)
    assert (found[0].url, found[0].title, found[0].source) == (long.url, "Quay", "w:1")
    # Words of the title count as well.
    assert index.Index(tmp_path / "index").search("mill")[0].source == "w:2"


def test_what_is_indexed_is_counted(tmp_path):
    pages = ["a b", "a b", Page("a b", "u"), " ", "c " * 400]
    counts = index.build(tmp_path / "index", pages, characters=500)
    assert counts == {"pages": 3, "repeated": 1, "empty": 1, "passages": 4}


def test_engines_agree(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = opened(tmp_path / "one", PAGES + ENGLISH, "fts5")
    second = opened(tmp_path / "two", PAGES + ENGLISH, "tantivy")
    for _, question in SCRIPTS.values():
        assert first.find(question) == second.find(question)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_kit_checks_indexes(engine, tmp_path):
    if engine == "tantivy":
        pytest.importorskip("tantivy")
    check_index(engine, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_several_threads_may_ask_at_once(engine, tmp_path):
    find = opened(tmp_path, PAGES, engine).find
    questions = [question for _, question in SCRIPTS.values()] * 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(find, questions)) == [[page] for page in PAGES] * 4


OWN_INDEX = """
import dataclasses as dc
import json
from llmstages.plugin import Passage, option

class Newest:
    @dc.dataclass(frozen=True)
    class Config:
        shown: int = option(1, "passages")
    version = "1"
    def __init__(self, config):
        self.config = config
    def build(self, folder, passages):
        rows = [dc.asdict(passage) for passage in passages]
        (folder / "rows.json").write_text(json.dumps(rows))
    def open(self, folder):
        self.rows = json.loads((folder / "rows.json").read_text())
    def find(self, query, limit):
        return [Passage(**row) for row in self.rows[::-1]][:min(limit, self.config.shown)]
"""


def test_an_index_of_ones_own_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_INDEX)
    index.build(tmp_path / "index", ["old", "new"], {"use": f"{file}:Newest"})
    assert index.Index.of(tmp_path).find("x", 5) == ["new"]
    file.write_text(OWN_INDEX.replace("def find", "def found"))
    with pytest.raises(StageError, match="does not keep its contract: it lacks find"):
        index.Index.of(tmp_path)


def test_an_index_is_opened_where_nothing_can_be_written(tmp_path):
    folder = tmp_path / "a folder #1 with 100%?"
    folder.mkdir()
    opened(folder, ENGLISH)
    for path in (folder / "index").iterdir():
        path.chmod(0o444)
    assert index.Index(folder / "index").find("bakery")


@pytest.mark.parametrize(
    "change, words_of_error",
    [
        ({"format": 1}, "made by format 1 and cannot be read; make it again"),
        ({"version": "0"}, "made by version 0 of its component"),
        ({"index": {"use": "oracle"}}, "nothing is registered as 'oracle'"),
    ],
)
def test_an_index_of_another_version_is_refused(change, words_of_error, tmp_path):
    opened(tmp_path, ENGLISH)
    file = tmp_path / "index/index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(StageError, match=words_of_error):
        index.Index.of(tmp_path)


def test_indexes_of_the_first_format_and_damaged_ones_are_refused(tmp_path):
    with pytest.raises(StageError, match="there is no search index at"):
        index.Index.of(tmp_path)
    sqlite3.connect(tmp_path / "index.sqlite").execute("CREATE TABLE pages(text)")
    with pytest.raises(StageError, match="made by an older version and cannot be read"):
        index.Index.of(tmp_path)
    opened(tmp_path, ENGLISH)
    (tmp_path / "index/index.json").write_text("{")
    with pytest.raises(StageError, match="is damaged"):
        index.Index.of(tmp_path)


@pytest.mark.parametrize(
    "spec, words_of_error",
    [
        ({"use": "fts6"}, "nothing is registered as 'fts6' in llmstages.indexes"),
        ({"use": "fts5", "language": "xx"}, "language"),
        ({"use": "fts5", "stemmer": "porter"}, "has no key 'stemmer'"),
        ({"use": "tantivy", "memory_mb": 1}, "memory_mb"),
    ],
)
def test_wrong_settings_of_an_index_are_refused(spec, words_of_error):
    with pytest.raises(StageError, match=words_of_error):
        registry.component_config("indexes", spec)


def test_packages_that_are_missing_are_named_before_any_work(monkeypatch):
    monkeypatch.setattr(tantivy_index.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"needs the package tantivy.*llmstages\[tantivy\]"):
        registry.component_config("indexes", {"use": "tantivy"})
    with pytest.raises(StageError, match=r"language=de needs Stemmer.*llmstages\[stemmer\]"):
        registry.component_config("indexes", {"use": "fts5", "language": "de"})


class WithoutFind:
    Config = Passage
    version = "1"

    def build(self, folder, passages): ...

    def open(self, folder): ...


def test_the_contract_of_an_index_is_checked():
    from llmstages.core.contracts import violations
    from llmstages.plugin import Index

    assert violations(WithoutFind, Index) == ["it lacks find"]


def test_neighbors_are_pairs_of_ideographs_and_triples_of_alphabets():
    assert words.phrases("血管病") == ["血 管", "管 病"]
    assert words.phrases("頭") == ["頭"]
    assert words.phrases("ไฟไฟ") == ["ไ ฟ ไ", "ฟ ไ ฟ"]
    assert len(words.phrases("文" * 3 + "".join(map(chr, range(0x4E00, 0x4F00))))) == 100
