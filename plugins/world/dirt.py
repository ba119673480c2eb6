"""The web around the world's paragraphs: page furniture, and all that cleaning must notice.

Each page knows whether it should be kept and, if not, which kind of rule ought to say so. The
kinds: url (blocked host), language, quality (spam, keyword stuffing, stubs), exact_dedup,
minhash_dedup, encoding, empty.
"""

from __future__ import annotations

import html
import random
import uuid
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

FOREIGN = {
    "de": (
        "Am Morgen geht der alte Müller zum Markt und kauft frisches Brot.",
        "Die Kinder spielen den ganzen Tag am Fluss.",
        "Im Winter liegt der Schnee hoch vor dem Haus.",
        "Meine Großmutter erzählt uns gern lange Geschichten.",
        "Der Hund schläft unter dem Tisch, während wir essen.",
        "Niemand weiß, warum das Licht noch brennt.",
    ),
    "fr": (
        "Le matin, le vieux meunier va au marché pour acheter du pain frais.",
        "Les enfants jouent toute la journée au bord de la rivière.",
        "En hiver la neige est haute devant la maison.",
        "Ma grand-mère aime nous raconter de longues histoires.",
        "Le chien dort sous la table pendant que nous mangeons.",
        "Personne ne sait pourquoi la lumière brûle encore.",
    ),
    "es": (
        "Por la mañana el viejo molinero va al mercado a comprar pan fresco.",
        "Los niños juegan todo el día junto al río.",
        "En invierno la nieve es alta delante de la casa.",
        "A mi abuela le gusta contarnos historias largas.",
        "El perro duerme debajo de la mesa mientras comemos.",
        "Nadie sabe por qué la luz sigue encendida.",
    ),
}
SPAM = (
    "cheap watches discount pills casino bonus free money click here best price buy now "
    "limited offer winner"
).split()
MENU = ("Home", "About", "Contact", "News", "Archive", "Privacy", "Login", "Search")
HOSTS = (
    "almanac.example",
    "gazette.example",
    "village-notes.example",
    "reader.example",
    "old-letters.example",
)
BLOCKED = ("adult-videos.example", "casino-royal.example")  # words of the shipped URL list


@dataclass(frozen=True)
class Page:
    """One page of the crawl with its gold label.

    Attributes:
        keep: whether cleaning should keep it.
        rule: the kind of rule that should drop it, otherwise "".
        personal: strings that must not survive cleaning.
    """

    url: str
    body: bytes
    keep: bool = True
    rule: str = ""
    charset: str = "utf-8"
    personal: tuple[str, ...] = ()

    def gold(self) -> dict[str, Any]:
        """The line of gold.jsonl."""
        return {
            "url": self.url,
            "keep": self.keep,
            "rule": self.rule,
            "personal": list(self.personal),
        }


def dress(title: str, blocks: list[str], rng: random.Random) -> str:
    """An HTML page: menu, cookie notice, the blocks as paragraphs, footer."""
    menu = "".join(f'<li><a href="/{m.lower()}">{m}</a></li>' for m in rng.sample(MENU, 5))
    body = "\n".join(f"<p>{html.escape(block, quote=False)}</p>" for block in blocks)
    return (
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{title}</title></head><body><nav><ul>{menu}</ul></nav>"
        "<div class='cookie-banner'>We use cookies to improve your experience. "
        "<button>Accept all</button></div>"
        f"<main><article><h1>{title}</h1>\n{body}\n</article></main>"
        f"<footer>Copyright {rng.randint(1998, 2024)}. All rights reserved. "
        "<a href='/imprint'>Imprint</a></footer></body></html>"
    )


def crawl(clean: list[list[str]], share: float, rng: random.Random) -> list[Page]:
    """The clean pages, some with personal data, with dirty pages among and after them.

    Args:
        clean: the paragraphs of each clean page.
        share: dirty pages for each clean one.
    """
    pages = []
    for number, paragraphs in enumerate(clean):
        blocks, personal = _with_personal_data(paragraphs, rng)
        url = f"https://{rng.choice(HOSTS)}/{rng.choice(('notes', 'almanac', 'letters'))}/{number}"
        body = dress(f"Almanac, part {number + 1}", blocks, rng).encode()
        pages.append(Page(url, body, personal=personal))
    makers = (_blocked, _foreign, _spam, _stub, _copy, _mirror, _broken, _empty)
    dirty = []
    for number in range(int(share * len(clean))):
        make = makers[number % len(makers)]
        dirty.append(make(number, clean, pages, rng))
    # A copy must come after its original, so that cleaning meets the original first.
    copies = [page for page in dirty if page.rule in ("exact_dedup", "minhash_dedup")]
    others = pages + [page for page in dirty if page not in copies]
    rng.shuffle(others)
    return others + copies


def _with_personal_data(
    paragraphs: list[str], rng: random.Random
) -> tuple[list[str], tuple[str, ...]]:
    """The paragraphs, on some pages with one more that holds personal data; and that data."""
    blocks = list(paragraphs)
    if rng.random() >= 0.08:
        return blocks, ()
    name = rng.choice(("anna", "paul", "mira"))
    mail = f"{name}.{rng.randint(10, 99)}@post-{rng.randint(1, 9)}.com"
    phone = f"+1 212 555 {rng.randint(1000, 9999)}"
    numbers = [rng.choice((8, 51, 93, 130)), *(rng.randint(10, 99) for _ in range(3))]
    address = ".".join(map(str, numbers))
    text = (
        f"Letters reach the editor at {mail}, by telephone at {phone}, "
        f"or from the host {address} on most days."
    )
    blocks.insert(rng.randrange(len(blocks) + 1), text)
    return blocks, (mail, phone, address)


def _blocked(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    blocks = rng.sample(rng.choice(clean), 3)
    return Page(
        f"https://{rng.choice(BLOCKED)}/page/{i}",
        dress("Hot now", blocks, rng).encode(),
        False,
        "url",
    )


def _foreign(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    language = rng.choice(sorted(FOREIGN))
    blocks = [" ".join(rng.sample(FOREIGN[language], 4)) for _ in range(5)]
    return Page(
        f"https://{rng.choice(HOSTS)}/{language}/{i}",
        dress("Almanac", blocks, rng).encode(),
        False,
        "language",
    )


def _spam(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    blocks = [
        " ".join(rng.choices(SPAM, k=40)) if i % 2 else " ".join([rng.choice(SPAM)] * 30)
        for _ in range(5)
    ]
    return Page(
        f"https://{rng.choice(HOSTS)}/offers/{i}",
        dress("Best price", blocks, rng).encode(),
        False,
        "quality",
    )


def _stub(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    text = rng.choice(
        (
            "This page is under construction.",
            "Nothing to see here yet.",
            "Please log in to read this page.",
        )
    )
    return Page(
        f"https://{rng.choice(HOSTS)}/soon/{i}",
        dress("Soon", [text], rng).encode(),
        False,
        "quality",
    )


def _copy(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    original = rng.choice(pages)
    return replace(
        original,
        url=f"https://mirror.example/copy/{i}",
        keep=False,
        rule="exact_dedup",
        personal=(),
    )


def _mirror(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    blocks = list(rng.choice(clean))
    blocks.insert(rng.randrange(len(blocks)), f"Mirrored for the archive, copy {i}.")
    return Page(
        f"https://mirror.example/near/{i}",
        dress("Mirror", blocks, rng).encode(),
        False,
        "minhash_dedup",
    )


def _broken(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    text = dress("Almanac", rng.choice(clean), rng)
    start = text.index("<p>") + 3
    noise = bytes(rng.choice((0xFF, 0xFE, 0xC0, 0xF8, 0x81)) for _ in range(600))
    return Page(
        f"https://{rng.choice(HOSTS)}/broken/{i}",
        text[:start].encode() + noise + text[start:].encode(),
        False,
        "encoding",
    )


def _empty(i: int, clean: list[list[str]], pages: list[Page], rng: random.Random) -> Page:
    return Page(
        f"https://{rng.choice(HOSTS)}/empty/{i}",
        rng.choice((b"", b"<html><body></body></html>")),
        False,
        "empty",
    )


def write_warc(path: Path, pages: list[Page]) -> None:
    """One gzipped member a page; fixed dates and record ids, so equal pages give equal bytes."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for page in pages:
            headers = StatusAndHeaders(
                "200 OK",
                [("Content-Type", f"text/html; charset={page.charset}")],
                protocol="HTTP/1.1",
            )
            record = writer.create_warc_record(
                page.url,
                "response",
                payload=BytesIO(page.body),
                length=len(page.body),
                http_headers=headers,
                warc_headers_dict={
                    "WARC-Date": "2024-01-01T00:00:00Z",
                    "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, page.url)}>",
                },
            )
            writer.write_record(record)
