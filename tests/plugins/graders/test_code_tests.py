"""The grader code_tests: programs that pass, that fail, and that only try to look right."""

import json

import pytest

from llmstages.data.formats import problem
from llmstages.plugins.graders.code_tests import strict
from llmstages.text.grading import are_right, verdicts

MBPP = {
    "text": "Write a function `double` that doubles a number or a text.",
    "code": "def double(x):\n    return 2 * x",
    "test_list": ["assert double(2) == 4", "assert double('ab') == 'abab'"],
    "test_setup_code": "import math",
}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def double(x):\n    '''Twice x.'''\n",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n"
    "    assert candidate('a') == 'aa'\n",
    "entry_point": "double",
}
RIGHT = {
    "bare": "def double(x):\n    return 2 * x",
    "in a block": "Here it is:\n```python\ndef double(x):\n    return x + x\n```\nIt adds.",
    "the last block": "```\ndef double(x): return 0\n```\nNo:\n"
    "```py\ndef double(x): return 2 * x\n```",
    "a block without its end": "```python\ndef double(x):\n    return x * 2",
    "with output": "def double(x):\n    print('doubling')\n    return 2 * x",
    "with setup": "def double(x):\n    return math.floor(2) * x",
}
WRONG = {
    "empty": "",
    "words": "Just double it.",
    "another value": "def double(x):\n    return 3 * x",
    "one test only": "def double(x):\n    return 4",
    "another type": "def double(x):\n    return 4.0 if x == 2 else 'abab'",
    "no such function": "def twice(x):\n    return 2 * x",
    "an error": "def double(x):\n    raise ValueError",
    "an endless loop": "def double(x):\n    while True: pass",
    "equal to anything": "class E:\n    def __eq__(self, other): return True\n"
    "def double(x):\n    return E()",
    "looks like the value": "class E:\n    def __repr__(self): return '4'\n"
    "def double(x):\n    return E()",
    "equal inside": "class E:\n    def __eq__(self, other): return True\n"
    "def double(x):\n    return [E()]",
    "other names": "def type(x): return int\ndef all(x): return True\ndef double(x):\n    return 0",
    "says it passed": "print([4, 'abab'])\ndef double(x):\n    return 0",
    "ends early": "print([4, 'abab'])\nraise SystemExit(0)",
    "catches all": "try:\n    double\nexcept Exception:\n    print([4, 'abab'])",
}


@pytest.mark.parametrize("row", [MBPP, HUMAN_EVAL], ids=["mbpp", "humaneval"])
@pytest.mark.parametrize("engine", ["monty", "cpython"])
def test_programs_pass_or_fail_by_their_tests(row, engine):
    converted = problem({"test_setup_code": "import math", **row})
    assert converted["grader"] == "code_tests" and converted["task"] == "programs"
    if engine == "cpython":
        converted["grader"] = json.dumps({"use": "code_tests", "engine": "cpython"})
    right = are_right(list(RIGHT.values()), [converted] * len(RIGHT))
    assert dict(zip(RIGHT, right, strict=True)) == dict.fromkeys(RIGHT, True)
    wrong = are_right(list(WRONG.values()), [converted] * len(WRONG))
    assert dict(zip(WRONG, wrong, strict=True)) == dict.fromkeys(WRONG, False)


def test_a_completion_continues_the_function_that_it_was_shown():
    row = problem(HUMAN_EVAL)
    assert are_right(["    return 2 * x\n", "    return x\n"], [row] * 2) == [True, False]


def test_without_tests_nothing_is_decided():
    row = {"prompt": [], "answer": "x", "grader": "code_tests", "meta": "{}"}
    assert verdicts(["def f(): pass"], [row]) == [None]


def test_a_comparison_with_a_literal_is_strict():
    assert strict("assert f(1) == [2]", "same") == "assert same(f(1), [2])"
    for other in ("assert f(1)", "assert f(1) != 2", "assert f(1) == g(2)", "assert (", ""):
        assert strict(other, "same") == other
