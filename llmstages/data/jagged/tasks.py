"""The jagged tasks by name, the options of the stages that ask them, and how items are drawn."""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Context, option
from llmstages.data.jagged import dates, logic, numbers, words
from llmstages.data.jagged.items import Item, Style, Task
from llmstages.text.messages import message

TASKS: Mapping[str, Task] = {
    "spelling": Task(words.spelling, (4, 7, 10), "letters", 2, 40),
    "letter_counting": Task(words.letter_counting, (4, 7, 10), "letters", 2, 40),
    "reversing": Task(words.reversing, (4, 7, 10), "letters", 2, 40),
    "comparing_decimals": Task(numbers.comparing_decimals, (1, 2, 3), "decimals", 1, 12),
    "dates": Task(dates.dates, (7, 31, 365), "days", 1, 10_000),
    "multiplication": Task(numbers.multiplication, (1, 2, 3), "digits", 1, 12),
    "logic": Task(logic.logic, (3, 4, 5), "names", 3, 12),
}
OF_WORDS = ("spelling", "letter_counting", "reversing")
# What may stand behind a question to ask for a way of answering.
WORDINGS: Mapping[str, str] = {
    "open": "",
    "direct": " Answer directly.",
    "steps": " Think step by step.",
    "code": " Use Python.",
}
Wording = Literal["open", "direct", "steps", "code"]
WORDING_HELP = (
    "what the questions ask for: open (nothing), direct (the answer alone), steps, code (Python)"
)
TRIES = 400  # draws in a row without a new question, after which there are taken to be no more
MOST_ALIKE = (
    0.5  # share of questions of a task that one constant answer gets, from which it is said
)


@dataclass(frozen=True)
class QuestionOptions:
    """The options that problems.jagged, dialogues.jagged and evaluate.jagged share."""

    tasks: dict[str, Any] = option(
        help="task -> sizes: spelling, letter_counting and reversing by letters of the word, "
        "comparing_decimals by decimals, dates by days at most, multiplication by digits of each "
        "number, logic by names; an empty list leaves a task out",
        factory=lambda: {name: list(task.sizes) for name, task in TASKS.items()},
    )
    words: Literal["english", "generated"] = option(
        "english", "where words and names come from: a bundled list, or letters of `alphabet`"
    )
    alphabet: str = option(string.ascii_lowercase, "letters of generated words")
    wordings: int = option(3, "phrasings of each question that are used", ge=1, le=3)
    seed: int = option(0, "seed of the questions")

    def style(self) -> Style:
        """How questions are worded."""
        return Style(self.words == "english", self.alphabet, self.wordings)

    def sizes(self) -> list[tuple[str, int]]:
        """All (task, size) that are asked."""
        return [(task, size) for task, sizes in self.tasks.items() for size in sizes or ()]


def validate(options: QuestionOptions, step: str) -> None:
    """Refuse unknown tasks, sizes that do not exist, and an alphabet without different letters.

    Raises:
        StageError: names the option.
    """
    for name, sizes in options.tasks.items():
        if name not in TASKS:
            raise StageError(
                f"{step}.tasks has no task {name!r}.{near(name, TASKS)} There are "
                f"{', '.join(TASKS)}"
            )
        if not isinstance(sizes, Sequence | None) or isinstance(sizes, str):
            raise StageError(f"{step}.tasks.{name} must be a list of sizes, such as [4, 7]")
        for size in sizes or ():
            _check_size(name, size, options, step)
    if not options.sizes():
        raise StageError(f"{step}.tasks asks nothing; try {step}.tasks.spelling=[4]")
    letters = options.alphabet
    if len(set(letters)) < max(2, len(letters)) or not letters.isalpha():
        raise StageError(f"{step}.alphabet={letters!r} must be two or more different letters")


def _check_size(name: str, size: Any, options: QuestionOptions, step: str) -> None:
    task = TASKS[name]
    is_number = isinstance(size, int) and not isinstance(size, bool)
    if not is_number or not task.smallest <= size <= task.largest:
        raise StageError(
            f"{step}.tasks.{name} has the size {size!r}, but {task.unit} are a whole number from "
            f"{task.smallest} to {task.largest}"
        )
    if name in OF_WORDS and options.words == "english" and size not in words.english():
        lengths = ", ".join(map(str, words.english()))
        raise StageError(
            f"{step}.tasks.{name}: the bundled list has no words of {size} letters, only of "
            f"{lengths}; {step}.words=generated makes words of any length"
        )
    if name == "logic" and options.words == "generated":
        possible = len(set(options.alphabet)) ** logic.GENERATED_LETTERS
        if possible < size:
            raise StageError(f"{step}.alphabet has too few letters for {size} different names")


def group_name(task: str, size: int) -> str:
    """The group of questions of one size: "7 letters"."""
    unit = TASKS[task].unit
    return f"{size} {unit.removesuffix('s') if size == 1 else unit}"


def draw(
    task: str, size: int, count: int, options: QuestionOptions, *, test: bool, purpose: str
) -> list[Item]:
    """Different items of a task, all for tests or all for training.

    There are fewer than ``count`` where no more questions of this size are found. A test asks
    nothing twice: intervals are for independent questions. Training may see a question in several
    phrasings.

    Args:
        purpose: keeps the questions of a stage apart from those of others with the same seed.
    """
    rng = random.Random(f"jagged {purpose} {options.seed} {task} {size}")
    style = options.style()
    items: dict[Any, Item] = {}
    failures = 0
    turn = 0
    while len(items) < count and failures < TRIES:
        item = TASKS[task].make(rng, size, turn, style)
        asked = (item.key, item.answer) if test else item.question
        if item.is_test != test or asked in items:
            failures += 1
            # A kind that has no more questions must not block the others.
            turn += failures % (TRIES // 8) == 0
            continue
        items[asked] = item
        turn += 1
        failures = 0
    return list(items.values())


def problem_row(task: str, size: int, item: Item, wording: str) -> dict[str, Any]:
    """An item as a row of a problems artifact."""
    constant = {"constant": item.constant} if item.constant else {}
    meta = {**item.meta, **constant, "kind": item.kind, "size": size}
    return {
        "prompt": [message("user", item.question + WORDINGS[wording])],
        "answer": item.answer,
        "aliases": list(item.aliases),
        "task": task,
        "group": group_name(task, size),
        "role": "test" if item.is_test else "train",
        "style": "chat",
        "grader": "jagged",
        "meta": json.dumps(meta, sort_keys=True),
    }


def report_counts(
    task: str, size: int, items: Sequence[Item], count: int, ctx: Context, role: str
) -> None:
    """Say where fewer questions exist than were asked for.

    Raises:
        StageError: there is none.
    """
    group = group_name(task, size)
    if count and not items:
        raise StageError(
            f"{ctx.step}.tasks.{task}: no {role} question of {group} is found; choose a larger "
            "size or alphabet"
        )
    if len(items) < count:
        ctx.say(
            f"{ctx.step}: {task}, {group}: {len(items)} different {role} questions are found, not "
            f"{count}"
        )


def constant_share(items: Sequence[Item]) -> float:
    """The share of the items that the best constant way of answering gets right."""
    ways = Counter(item.constant or item.answer for item in items)
    return max(ways.values()) / len(items)
