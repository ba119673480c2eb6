"""Jagged questions: exact answers, roles that never meet, balanced answers, programs that run."""

from __future__ import annotations

import calendar
import re
from collections import Counter
from datetime import date, timedelta

import pytest

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.data.jagged import tasks
from llmstages.data.jagged.tasks import QuestionOptions, draw
from llmstages.text.grading import is_right

SMALL = QuestionOptions(words="generated", alphabet="abcde")
STYLES = pytest.mark.parametrize("options", [QuestionOptions(), SMALL], ids=["english", "abcde"])
QUOTED = re.compile(r'"(\w+)"')
ISO = re.compile(r"\d{4}-\d\d-\d\d")


def all_items(options, test=False, count=20, purpose="tests"):
    for task, size in options.sizes():
        for item in draw(task, size, count, options, test=test, purpose=purpose):
            yield task, size, item


def expected(task, item):
    """The answer, worked out from the question alone."""
    question = item.question
    quoted = QUOTED.findall(question)
    if task == "spelling":
        return "-".join(quoted[0])
    if task == "reversing":
        return "".join(reversed(quoted[0]))
    if task == "letter_counting":
        letter, word = sorted(quoted, key=len)
        return str(sum(other == letter for other in word))
    if task == "comparing_decimals":
        from decimal import Decimal

        return max(re.findall(r"\d+\.\d+", question), key=Decimal)
    if task == "multiplication":
        first, second = map(int, re.findall(r"\d+", question))
        return str(sum(first for _ in range(second)))
    days = [date.fromisoformat(text) for text in ISO.findall(question)]
    if len(days) == 1:
        number = next(int(n) for n in re.findall(r"\b\d+\b", ISO.sub("", question)))
        return str(days[0] + timedelta(days=number))
    if item.kind == "choice":
        return calendar.day_name[calendar.weekday(days[1].year, days[1].month, days[1].day)]
    return str(days[1].toordinal() - days[0].toordinal())


@STYLES
def test_answers_follow_from_the_questions(options):
    for task, _, item in all_items(options):
        if task != "logic":
            assert item.answer == expected(task, item), item


@STYLES
def test_logic_follows_from_its_premises(options):
    """Checked by a search over all relations, not by the order that the maker knew."""
    for task, size, item in all_items(options):
        if task != "logic":
            continue
        if "All " in item.question:
            assert item.answer == syllogism(item.question), item
            continue
        said = re.findall(r"(\w+) is (\w+) than (\w+)", item.question)
        premises, claims = said[: size - 1], said[size - 1 :]
        above = {(first, second) for first, _, second in premises}
        while further := {(a, d) for a, b in above for c, d in above if b == c} - above:
            above |= further
        names = {name for pair in above for name in pair}
        if claims:
            first, word, second = claims[0]
            backwards = word in ("shorter", "younger", "slower")
            pair = (second, first) if backwards else (first, second)
            assert item.answer == str(pair in above), item
        else:
            place = 0 if re.search(r"tallest|oldest|fastest", item.question) else 1
            counts = Counter(pair[place] for pair in above)
            assert [name for name in names if counts[name] == size - 1] == [item.answer], item


def syllogism(question):
    """Whether the claim holds in each world of three individuals with these nouns.

    Every noun holds of some of the individuals, as people read "all": nothing is empty.
    """
    premises, claim = re.split(r"(?:Does it follow|Can one conclude|Must it be) that ", question)
    statements = re.findall(r"(All|No) (\w+) are (\w+)\.", premises)
    nouns = sorted({noun for _, *pair in statements for noun in pair})
    kind, first, second = re.fullmatch(r"(all|no|some) (\w+) are (\w+)\?", claim).groups()

    def holds(kind, left, right):
        both = left & right
        return {"all": both == left, "no": not both, "some": bool(both)}[kind]

    def worlds(known, rest):
        if not rest:
            yield known
            return
        for members in range(1, 8):
            longer = {**known, rest[0]: members}
            if all(
                holds(k.lower(), longer[a], longer[b])
                for k, a, b in statements
                if a in longer and b in longer
            ):
                yield from worlds(longer, rest[1:])

    return "yes" if all(holds(kind, w[first], w[second]) for w in worlds({}, nouns)) else "no"


@STYLES
def test_nothing_of_a_test_occurs_in_training_whatever_the_seed(options):
    trained = {item.key for _, _, item in all_items(options, count=100, purpose="dialogues")}
    other = QuestionOptions(words=options.words, alphabet=options.alphabet, seed=7)
    tested = {item.key for _, _, item in all_items(other, test=True, purpose="evaluate")}
    assert trained and tested and not trained & tested
    words = {key.removeprefix("word ") for key in tested if key.startswith("word ")}
    questions = [item.question for _, _, item in all_items(options, count=100)]
    assert not words & {word for question in questions for word in QUOTED.findall(question)}


@STYLES
def test_the_same_seed_gives_the_same_questions_and_another_one_others(options):
    first = [item.question for _, _, item in all_items(options)]
    assert first == [item.question for _, _, item in all_items(options)]
    other = QuestionOptions(words=options.words, alphabet=options.alphabet, seed=1)
    assert first != [item.question for _, _, item in all_items(other)]


def test_a_constant_answer_earns_little():
    for task, size in SMALL.sizes():
        items = draw(task, size, 60, SMALL, test=False, purpose="tests")
        most = {"comparing_decimals": 0.5, "letter_counting": 0.35, "logic": 0.35}.get(task, 0.2)
        assert tasks.constant_share(items) <= most, task
    # Neither the first number nor the longer one is larger more often.
    items = draw("comparing_decimals", 2, 60, SMALL, test=False, purpose="tests")
    longer = [item for item in items if item.answer == max(item.meta["options"], key=len)]
    assert 20 <= len(longer) <= 40


def test_a_test_asks_nothing_twice_and_says_where_there_is_no_more():
    options = QuestionOptions()
    items = draw("multiplication", 1, 50, options, test=True, purpose="tests")
    assert len({item.key for item in items}) == len(items) < 50


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"tasks": {"speling": [4]}}, "no task 'speling'.*spelling"),
        ({"tasks": {"spelling": [1]}}, "from 2 to 40"),
        ({"tasks": {"multiplication": [True]}}, "size True"),
        ({"tasks": {"multiplication": ["2"]}}, "size '2'"),
        ({"tasks": {"multiplication": 2}}, "must be a list"),
        ({"tasks": {"reversing": [30]}}, "no words of 30 letters.*words=generated"),
        ({"tasks": {"reversing": []}}, "asks nothing"),
        ({"tasks": {}}, "asks nothing"),
        ({"alphabet": "a"}, "different letters"),
        ({"alphabet": "aab"}, "different letters"),
        ({"alphabet": "a b"}, "different letters"),
        ({"alphabet": "a1"}, "different letters"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes, said):
    with pytest.raises(StageError, match=f"mine.*{said}"):
        tasks.validate(QuestionOptions(**changes), "mine")


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_ends_of_every_size_can_be_asked(task):
    smallest, largest = tasks.TASKS[task].smallest, tasks.TASKS[task].largest
    options = QuestionOptions(words="generated", tasks={task: [smallest, largest]})
    tasks.validate(options, "mine")
    for size in (smallest, largest):
        assert draw(task, size, 5, options, test=False, purpose="tests"), size


@STYLES
def test_the_ways_of_answering_are_graded_as_right_and_others_answers_are_not(options):
    for task, size in options.sizes():
        items = draw(task, size, 8, options, test=False, purpose="tests")
        for item in items:
            row = tasks.problem_row(task, size, item, "open")
            assert is_right(item.answer, row), item
            assert is_right(f"{item.steps} The answer is {item.answer}.", row), item
            assert not is_right("", row) and not is_right("I do not know.", row), item
            for other in items:
                if other.answer != item.answer and other.answer not in item.aliases:
                    assert not is_right(f"The answer is {other.answer}.", row), (item, other)


@STYLES
def test_every_program_gives_the_answer_with_the_tool(options):
    tool = load_component("tools", {"use": "python"})
    for _, _, item in all_items(options):
        assert item.answer in tool(item.code), item


@STYLES
def test_every_program_is_one_line_and_gives_the_answer_in_python(options):
    import ast

    for _, _, item in all_items(options):
        assert "\n" not in item.code
        *before, last = ast.parse(item.code).body
        names: dict = {}
        exec(compile(ast.Module(before, []), "item", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "item", "eval"), names)
        assert item.answer in str(value), item
