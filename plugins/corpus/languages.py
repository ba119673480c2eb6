"""Languages of documents: the codes that the classifier knows, and stop words of some.

The stop words are the most frequent function words of each language (articles, conjunctions,
prepositions, pronouns, forms of "to be" and "to have"), chosen by hand for llmstages, as the eight
English ones of Gopher are; FineWeb-2 (Penedo et al. 2025, arXiv 2506.20920) uses lists of about
the same length with the same limit of two. Left out on purpose: languages that are written without
blanks between words.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmstages.core.errors import near

# What fastText's lid.176 gives: ISO 639-1 where there is a code of two letters, otherwise 639-3 and
# a few of Wikipedia's own
IDENTIFIED = tuple(
    """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb
    co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he
    hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez
    li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl
    nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so
    sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi
    yo yue zh
    """.split()
)
# Names and codes of three letters that people write
OTHER_NAMES = {
    "english": "en",
    "eng": "en",
    "german": "de",
    "deu": "de",
    "ger": "de",
    "french": "fr",
    "fra": "fr",
    "fre": "fr",
    "spanish": "es",
    "spa": "es",
    "italian": "it",
    "ita": "it",
    "dutch": "nl",
    "nld": "nl",
    "portuguese": "pt",
    "por": "pt",
    "swedish": "sv",
    "swe": "sv",
    "danish": "da",
    "dan": "da",
    "norwegian": "no",
    "nob": "no",
    "nb": "no",
    "finnish": "fi",
    "fin": "fi",
    "polish": "pl",
    "pol": "pl",
    "czech": "cs",
    "ces": "cs",
    "russian": "ru",
    "rus": "ru",
    "chinese": "zh",
    "zho": "zh",
    "japanese": "ja",
    "jpn": "ja",
    "korean": "ko",
    "kor": "ko",
    "arabic": "ar",
    "ara": "ar",
}
# Language -> its stop words. English has those of Gopher, in the filter itself.
STOP_WORDS: dict[str, tuple[str, ...]] = {
    language: tuple(words.split())
    for language, words in {
        "cs": "a v na se je že s z do to o i ale jako pro za jsou po by který",
        "da": "og i at det er en til på af for med der de den ikke som et har fra var",
        "de": "der die und in das den von zu mit des dem ist nicht ein eine auf für im sich auch",
        "es": "de la que el en y a los se del las un por con no una para su es al",
        "fi": "ja on ei se että oli mutta hän myös kun ovat tai joka sen kuin niin mukaan ole jos",
        "fr": "de la le et les des en un du une que est pour dans qui par plus pas au sur",
        "hu": "a az és hogy nem is egy ez volt meg de csak már ha mint vagy el van után még",
        "it": "di e che la il un a per in una sono non con del si da come le dei al",
        "nl": "de het een en van in is dat op te zijn met voor niet aan die er om ook als",
        "no": "og i det er på en til som for av at med ikke de den har et var fra om",
        "pl": "w i na z do się nie to że jest o jak po za od dla co przez ale są",
        "pt": "de a o que e do da em um para com não uma os no se na por mais as",
        "ro": "și de în la a cu o din pe nu că care un este mai pentru sunt prin au fost",
        "ru": "и в не на что с он как это по но из у за к от его для то был",
        "sv": "och i att det som en på är av för med till den har de inte om ett han var",
        "tr": "ve bir bu da de için ile olarak daha çok en gibi olan sonra kadar ne o ama var ki",
        "uk": "і в на не що з до як за у та це від його для але про а по є",
    }.items()
}


def unknown_language(code: str) -> str:
    """What is wrong with a code of a language that the classifier does not know."""
    name = OTHER_NAMES.get(code.lower())
    guess = f" Did you mean {name!r}?" if name else near(code, IDENTIFIED)
    return (
        f"{code!r} is no language that the classifier (lid.176) knows.{guess} "
        "It takes codes such as en, de, fr, zh (ISO 639-1 where there is one)"
    )


def without_stop_words(languages: Sequence[str]) -> list[str]:
    """Those of the languages for which there is no list."""
    return [code for code in languages if code != "en" and code not in STOP_WORDS]
