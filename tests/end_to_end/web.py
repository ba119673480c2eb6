"""Small files that look real: a WARC of English pages, Alpaca dialogues, HH preferences, GSM8K."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path


def words(*lines: str) -> list[str]:
    """The words of some lines."""
    return " ".join(lines).split()


ADJECTIVES = words(
    "old young quiet busy clever tired cheerful careful famous lonely patient stubborn",
    "gentle curious",
)
PEOPLE = words(
    "baker sailor teacher painter mayor gardener doctor farmer singer carpenter widow soldier",
    "student fisherman",
)
ADVERBS = words(
    "slowly gladly often never secretly finally carefully once suddenly rarely proudly bravely"
)
VERBS = words(
    "carried painted found sold mended buried counted borrowed described washed collected promised"
)
THINGS = words(
    "apples letters boats lanterns chairs coins maps ropes bottles books clocks baskets stones",
    "flags",
)
WHERE = words("near behind beyond beside above across")
PLACES = words(
    "harbour market library mill station school orchard bridge church theatre hospital garden",
    "river forest",
)
WHEN = words("before after during despite without since")
EVENTS = words("storm wedding harvest war flood election festival winter fire trial strike concert")


def sentence(rng: random.Random) -> str:
    """One English sentence in which every slot holds one word.

    So no long run of words occurs twice, and nothing is dropped as a duplicate.
    """
    first, second, third = rng.sample(ADJECTIVES, 3)
    return (
        f"In {rng.randint(1800, 1999)} the {first} {rng.choice(PEOPLE)} {rng.choice(ADVERBS)} "
        f"{rng.choice(VERBS)} {rng.randint(2, 99)} {second} {rng.choice(THINGS)} "
        f"{rng.choice(WHERE)} the {rng.choice(PLACES)} and {rng.choice(ADVERBS)} told the "
        f"{rng.choice(PEOPLE)} of {rng.choice(THINGS)} {rng.choice(WHEN)} the {third} "
        f"{rng.choice(EVENTS)}."
    )


def paragraph(rng: random.Random) -> str:
    """Five sentences in a paragraph of HTML."""
    sentences = [sentence(rng) for _ in range(5)]
    return f"<p>{' '.join(sentences)}</p>"


def page(rng: random.Random, title: str) -> str:
    """An HTML page of four paragraphs between a menu and a footer."""
    text = "".join(paragraph(rng) for _ in range(4))
    return (
        f"<html><head><title>{title}</title></head><body>"
        "<nav><a href='/'>Home</a> <a href='/about'>About</a></nav>"
        f"<article><h1>{title}</h1>{text}</article>"
        "<footer>All rights reserved</footer></body></html>"
    )


def write_warc(path: Path, pages: list[str]) -> Path:
    """A gzipped WARC of response records, one gzip member per record."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with open(path, "wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for number, html in enumerate(pages):
            headers = StatusAndHeaders(
                "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
            )
            body = io.BytesIO(html.encode())
            writer.write_record(
                writer.create_warc_record(
                    f"https://town.example/{number}", "response", payload=body, http_headers=headers
                )
            )
    return path


def write_web(path: Path, number: int = 60) -> Path:
    """A WARC of this many different pages."""
    rng = random.Random(0)
    pages = [page(rng, f"A chronicle of the town, part {n}") for n in range(number)]
    return write_warc(path, pages)


def alpaca_row(rng: random.Random) -> dict[str, str]:
    """A dialogue in the format of Alpaca."""
    instruction = f"Tell me about the {rng.choice(PLACES)}."
    return {"instruction": instruction, "input": "", "output": sentence(rng)}


def hh_row(rng: random.Random, place: str, number: int) -> dict[str, str]:
    """A pair of answers in the format of Anthropic's HH."""
    question = f"\n\nHuman: What happened near the {place}?\n\nAssistant: "
    return {
        "chosen": f"{question}{sentence(rng)}",
        "rejected": f"{question}No idea {number}.",
    }


def gsm8k_row(a: int, b: int) -> dict[str, str]:
    """A problem in the format of GSM8K."""
    return {
        "question": f"Ann has {a} apples and finds {b} more. How many apples has she now?",
        "answer": f"She has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} apples.\n#### {a + b}",
    }


def write_everything(folder: Path) -> dict[str, Path]:
    """Slot -> file, in common formats."""
    rng = random.Random(1)
    sums = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(40)]
    alpaca = [alpaca_row(rng) for _ in range(60)]
    hh = [hh_row(rng, place, number) for number, place in enumerate(PLACES * 2)]
    gsm8k = [gsm8k_row(a, b) for a, b in sums]

    files = {
        "pages": write_web(folder / "pages.warc.gz"),
        "dialogues": folder / "alpaca.json",
        "preferences": folder / "hh.jsonl",
        "problems": folder / "gsm8k.jsonl",
    }
    files["dialogues"].write_text(json.dumps(alpaca))
    files["preferences"].write_text("".join(json.dumps(row) + "\n" for row in hh))
    files["problems"].write_text("".join(json.dumps(row) + "\n" for row in gsm8k))
    return files
