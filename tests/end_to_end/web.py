"""A few real-looking files made on the spot: a WARC of English pages, Alpaca dialogues, HH preferences, GSM8K problems."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

KINDS = "old young quiet busy clever tired cheerful careful famous lonely patient stubborn gentle curious".split()
PEOPLE = "baker sailor teacher painter mayor gardener doctor farmer singer carpenter widow soldier student fisherman".split()
HOW = "slowly gladly often never secretly finally carefully once suddenly rarely proudly bravely".split()
DID = "carried painted found sold mended buried counted borrowed described washed collected promised".split()
THINGS = "apples letters boats lanterns chairs coins maps ropes bottles books clocks baskets stones flags".split()
WHERE = "near behind beyond beside above across".split()
PLACES = "harbour market library mill station school orchard bridge church theatre hospital garden river forest".split()
WHEN = "before after during despite without since".split()
EVENTS = (
    "storm wedding harvest war flood election festival winter fire trial strike concert".split()
)


def sentence(rng: random.Random) -> str:
    """One sentence of English; slots of one word, so that no long run of words is said twice."""
    a, b, c = rng.sample(KINDS, 3)
    return (
        f"In {rng.randint(1800, 1999)} the {a} {rng.choice(PEOPLE)} {rng.choice(HOW)} {rng.choice(DID)} {rng.randint(2, 99)} {b} "
        f"{rng.choice(THINGS)} {rng.choice(WHERE)} the {rng.choice(PLACES)} and {rng.choice(HOW)} told the {rng.choice(PEOPLE)} of "
        f"{rng.choice(THINGS)} {rng.choice(WHEN)} the {c} {rng.choice(EVENTS)}."
    )


def page(rng: random.Random, title: str) -> str:
    """An HTML page of four paragraphs between a menu and a footer."""
    text = "".join(f"<p>{' '.join(sentence(rng) for _ in range(5))}</p>" for _ in range(4))
    return (
        f"<html><head><title>{title}</title></head><body><nav><a href='/'>Home</a> <a href='/about'>About</a></nav>"
        f"<article><h1>{title}</h1>{text}</article><footer>All rights reserved</footer></body></html>"
    )


def write_warc(path: Path, pages: list[str]) -> Path:
    """A gzipped WARC of response records, one gzip member a record."""
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
    """A WARC of so many different pages."""
    rng = random.Random(0)
    return write_warc(
        path, [page(rng, f"A chronicle of the town, part {n}") for n in range(number)]
    )


def write_everything(folder: Path) -> dict[str, Path]:
    """Slot -> file, in the formats people have."""
    rng = random.Random(1)
    sums = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(40)]
    alpaca = [
        {
            "instruction": f"Tell me about the {rng.choice(PLACES)}.",
            "input": "",
            "output": sentence(rng),
        }
        for _ in range(60)
    ]
    hh = [
        {
            "chosen": f"\n\nHuman: What happened near the {place}?\n\nAssistant: {sentence(rng)}",
            "rejected": f"\n\nHuman: What happened near the {place}?\n\nAssistant: No idea {number}.",
        }
        for number, place in enumerate(PLACES * 2)
    ]
    gsm8k = [
        {
            "question": f"Ann has {a} apples and finds {b} more. How many apples has she now?",
            "answer": f"She has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} apples.\n#### {a + b}",
        }
        for a, b in sums
    ]
    files = {
        slot: folder / name
        for slot, name in (
            ("dialogues", "alpaca.json"),
            ("preferences", "hh.jsonl"),
            ("problems", "gsm8k.jsonl"),
        )
    }
    files["dialogues"].write_text(json.dumps(alpaca))
    for slot, rows in (("preferences", hh), ("problems", gsm8k)):
        files[slot].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"pages": write_web(folder / "pages.warc.gz"), **files}
