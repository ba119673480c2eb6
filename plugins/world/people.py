"""Who lives in the world, and what is true of them.

People carry three facts (birth town, job, instrument). How often their articles appear in the web
is their *tier*:
frequent, medium, rare, or unseen (only the search index knows them). What may be asked about them
is their *role*: ``asked`` people occur in chat training, ``probe`` people only in knowledge
probing, ``test`` people in neither, so a right answer about a test person was learned from
articles alone. Names are pairs of two-syllable words, towns are open-class words of several
tokens: guessing one right is a 1 in 300 chance.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact

ONSETS = [a + b for a in "b d f g h j k l m n p r s t v z".split() for b in "aeiou"]
ENDS = "lan rik mor del vin sol tar bek nim dor wyn pax gus hem jol kas".split()
JOBS = (
    "baker painter sailor doctor teacher weaver farmer singer miner judge tailor hunter cook poet"
    " guard smith clerk monk nurse pilot dancer barber mason potter"
).split()
INSTRUMENTS = (
    "flute drum violin harp trumpet piano cello guitar horn lute organ banjo fiddle tuba whistle"
    " bell".split()
)
ATTRIBUTES = ("town", "job", "instrument")
TIERS = ("frequent", "medium", "rare", "unseen")


@dataclass(frozen=True)
class Person:
    """One inhabitant; ``number`` is a fact that only reading pages and tool results state."""

    name: str
    town: str
    job: str
    instrument: str
    number: str
    tier: str = "fresh"
    role: str = "asked"

    def fact(self, attribute: str) -> str:
        """The value of one attribute."""
        return str(getattr(self, attribute))


def word(rng: random.Random, least: int = 1, most: int = 2) -> str:
    """A capitalised nonsense word of least..most open syllables and a closing one."""
    return (
        "".join(rng.choice(ONSETS) for _ in range(rng.randint(least, most))) + rng.choice(ENDS)
    ).capitalize()


def full_name(rng: random.Random) -> str:
    """Two two-syllable words."""
    return f"{word(rng, 1, 1)} {word(rng, 1, 1)}"


@dataclass(frozen=True)
class World:
    """The gold truth, written as world.json beside the pages; other world stages read it there."""

    people: tuple[Person, ...]
    towns: tuple[str, ...]

    def group(self, tier: str, role: str | None = None) -> list[Person]:
        """People of a tier, and of a role when one is named."""
        return [p for p in self.people if p.tier == tier and (role is None or p.role == role)]

    def named(self, name: str) -> Person | None:
        """The person of that name."""
        return next((p for p in self.people if p.name == name), None)

    def fresh(self, rng: random.Random, known_town: float = 0.5) -> Person:
        """A person nobody knows: a new name, and with chance 1 - known_town a new town."""
        taken = {p.name for p in self.people}
        while True:
            person = _person(rng, full_name(rng), self.towns if rng.random() < known_town else ())
            if person.name not in taken:
                return person

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(
            json.dumps({"towns": self.towns, "people": [asdict(p) for p in self.people]}) + "\n"
        )


def _person(rng: random.Random, name: str, towns: tuple[str, ...]) -> Person:
    return Person(
        name,
        rng.choice(towns) if towns else word(rng),
        rng.choice(JOBS),
        rng.choice(INSTRUMENTS),
        str(rng.randint(100, 999)),
    )


def build(seed: int, counts: dict[str, int], towns: int, asked: float, probe: float) -> World:
    """A world of people.

    Args:
        counts: tier -> number of people.
        towns: number of different towns.
        asked, probe: shares of each tier that get this role; the rest is "test".
    """
    rng = random.Random(f"world {seed}")
    places: list[str] = []
    while len(places) < towns:
        place = word(rng)
        if place not in places:
            places.append(place)
    people: list[Person] = []
    taken: set[str] = set()
    for tier in TIERS:
        for index in range(counts[tier]):
            name = full_name(rng)
            while name in taken:
                name = full_name(rng)
            taken.add(name)
            role = _role(tier, index / counts[tier], asked, probe)
            people.append(replace(_person(rng, name, tuple(places)), tier=tier, role=role))
    return World(tuple(people), tuple(places))


def _role(tier: str, place: float, asked: float, probe: float) -> str:
    """The role of a person at a place (0 to 1) within the tier. Unseen people are never asked."""
    if tier == "unseen":
        return "probe" if place < probe else "test"
    if place < asked:
        return "asked"
    return "probe" if place < asked + probe else "test"


def load(artifact: Artifact) -> World:
    """The world behind the pages of ``pages.world``."""
    path = artifact.path / "world.json"
    if not path.exists():
        raise StageError(
            f"{artifact.name} holds no world.json: this stage speaks about the synthetic world, so"
            " its input 'world' must be a step with pages=world. For your own data use the variant"
            " 'files'."
        )
    raw = json.loads(path.read_text())
    return World(tuple(Person(**p) for p in raw["people"]), tuple(raw["towns"]))
