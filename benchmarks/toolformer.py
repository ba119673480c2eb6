"""Questions of which some need a tool and others do not, to measure what tools=augment teaches.

    python benchmarks/toolformer.py FOLDER

writes chats.jsonl (to train on), problems.jsonl (other questions of the same kinds, to measure
with) and pages/ (to search in). With these and a small chat model (MODEL),

    cd FOLDER
    llmstages run recipe=toolformer model.path=MODEL dialogues.path=chats.jsonl pages.path=pages \\
        problems.path=problems.jsonl problems.test_fraction=1

measures how often it calls a tool for each kind (``called`` of the step ``evaluate``). There are
four kinds of questions, in equal parts:

large numbers     products of 2 and 3 digits and long sums: a small model gets them wrong
small numbers     sums of two digits: it knows them
invented people   a fact about a person who does not exist: only a page of pages/ tells it
capitals          it knows them, and pages/ tells them too
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

PER_KIND = 30  # dialogues to train on
HELD_OUT = 20  # questions of each kind to measure with
CAPITALS = (
    "France Paris|Germany Berlin|Italy Rome|Spain Madrid|Japan Tokyo|China Beijing|Russia Moscow|"
    "Egypt Cairo|Greece Athens|Austria Vienna|Portugal Lisbon|Poland Warsaw|Ireland Dublin|"
    "Norway Oslo|Sweden Stockholm|Finland Helsinki|Denmark Copenhagen|Hungary Budapest|"
    "Belgium Brussels|Canada Ottawa|Cuba Havana|Peru Lima|Chile Santiago|Kenya Nairobi|"
    "Thailand Bangkok|Turkey Ankara|Iran Tehran|Iraq Baghdad|Syria Damascus|Lebanon Beirut|"
    "Jordan Amman|Israel Jerusalem|Vietnam Hanoi|Indonesia Jakarta|Philippines Manila|"
    "Malaysia Kuala_Lumpur|Cambodia Phnom_Penh|Nepal Kathmandu|Afghanistan Kabul|Ukraine Kyiv|"
    "Romania Bucharest|Bulgaria Sofia|Serbia Belgrade|Croatia Zagreb|Iceland Reykjavik|"
    "Argentina Buenos_Aires|Uruguay Montevideo|Venezuela Caracas|Colombia Bogota|Ecuador Quito"
)
FIRST = "Ovran Miltha Sebrin Dorka Elvun Hasmo Nirell Pavico Tulsen Wenda".split()
LAST = "Brask Cortevin Drolle Fesk Grumlin Hollat Kerrow Lusted Mandreth Pilkern".split()
TOWNS = "Arvelt Bostrin Culmary Denholt Esterby Falkrun Gendry Holmstead Ivarno Jelwick".split()
TRADES = "clockmaker glazier cartographer weaver botanist cooper farrier printer".split()


def large_numbers(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """(question, answer sentence, answer)."""
    rows = []
    while len(rows) < count:
        if rng.random() < 0.5:
            first, second, sign = rng.randint(120, 989), rng.randint(23, 98), "*"
            value = first * second
        else:
            first, second, sign = rng.randint(12345, 98765), rng.randint(12345, 98765), "+"
            value = first + second
        rows.append(_sum_row(f"{first} {sign} {second}", value))
    return rows


def small_numbers(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """(question, answer sentence, answer), no question twice."""
    pairs = [(first, second) for first in range(1, 10) for second in range(1, 10)]
    return [_sum_row(f"{a} + {b}", a + b) for a, b in rng.sample(pairs, count)]


def _sum_row(expression: str, value: int) -> tuple[str, str, str]:
    return f"What is {expression}?", f"{expression} = {value}", str(value)


def people(rng: random.Random) -> list[tuple[str, str, str, str]]:
    """(question, answer sentence, answer, page), one for each invented person."""
    rows = []
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    for name in rng.sample(names, PER_KIND + HELD_OUT):
        town, trade = rng.choice(TOWNS), rng.choice(TRADES)
        answer = f"{name} was born in {town}."
        page = f"{name} was a {trade}. {name} was born in {town}."
        rows.append((f"Where was {name} born?", answer, town, page))
    return rows


def capitals(rng: random.Random) -> list[tuple[str, str, str, str]]:
    """(question, answer sentence, answer, page)."""
    rows = []
    for pair in CAPITALS.split("|"):
        country, capital = pair.split(" ")
        capital = capital.replace("_", " ")
        answer = f"The capital of {country} is {capital}."
        rows.append((f"What is the capital of {country}?", answer, capital, answer))
    rng.shuffle(rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kinds = {
        "large numbers": large_numbers(rng, PER_KIND + HELD_OUT),
        "small numbers": small_numbers(rng, PER_KIND + HELD_OUT),
        "invented people": people(rng),
        "capitals": capitals(rng),
    }
    folder = arguments.folder
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    chats, problems, pages = [], [], []
    for kind, rows in kinds.items():
        for question, sentence, _, *_ in rows[:PER_KIND]:
            turns = [("user", question), ("assistant", sentence)]
            chats.append({"messages": [{"role": role, "content": text} for role, text in turns]})
        for question, _, answer, *_ in rows[PER_KIND:]:
            problems.append({"question": question, "answer": answer, "group": kind, "task": "when"})
        pages += [row[3] for row in rows if len(row) > 3]
    for name, table in (("chats.jsonl", chats), ("problems.jsonl", problems)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    for number, page in enumerate(pages):
        (folder / "pages" / f"{number}.txt").write_text(page)


if __name__ == "__main__":
    main()
