"""Components named by a file: functions and classes, their mistakes, and edits of the file."""

from pathlib import Path

import pytest

from llmstages.core import file_components
from llmstages.core.errors import StageError
from llmstages.core.registry import component_config, load_component
from llmstages.data.filtering import Document, Drop

REWARD = '''
def score(prompts, completions, rows):
    """Likes long answers."""
    return [len(text) for text in completions]
'''
CLASS = """
from __future__ import annotations
from dataclasses import dataclass
from llmstages.plugin import option

class Fixed:
    "Always the same."
    @dataclass(frozen=True)
    class Config:
        weight: float = option(1.0, "weight")
        value: float = option(2.0, "the score", ge=0)
    version = "1"
    def __init__(self, config):
        self.config = config
    def score(self, prompts, completions, rows):
        return [self.config.value] * len(completions)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return f"./{name}"

    return write


def test_a_function_is_a_reward_of_weight_1(file):
    reward = load_component("rewards", {"use": f"{file(REWARD)}:score"})
    assert reward.config.weight == 1.0
    assert reward.score([[]], ["abc", ""], {}) == [3.0, 0.0]
    assert type(reward).__doc__ == "Likes long answers."
    half = load_component("rewards", {"use": "./mine.py:score", "weight": 0.5})
    assert half.config.weight == 0.5


def test_a_function_is_a_tool_or_a_filter(file):
    file("def shout(text):\n    return text.upper()\n")
    tool = load_component("tools", {"use": "./mine.py:shout"})
    tool.open(Path())
    assert tool("a") == "A"
    file("def keep(document):\n    return 'spam' not in document.text\n", "filter.py")
    judge = load_component("filters", {"use": "./filter.py:keep"})
    ham, spam = (Document(text, "", text) for text in ("good", "spam"))
    kept, dropped = judge.judge([ham, spam])
    assert kept is None
    assert isinstance(dropped, Drop)
    assert dropped.rule == "keep"


def test_a_class_has_options_with_ranges(file):
    use = f"{file(CLASS)}:Fixed"
    assert load_component("rewards", {"use": use, "value": 3}).score([], ["a"], {}) == [3.0]
    with pytest.raises(StageError, match="rewards.*Fixed.value is -1, but it must be >= 0"):
        component_config("rewards", {"use": use, "value": -1.0})
    with pytest.raises(StageError, match="Did you mean 'value'"):
        component_config("rewards", {"use": use, "valeu": 1.0})


def test_an_edit_is_seen_at_once(file):
    spec = {"use": f"{file(REWARD)}:score"}
    assert load_component("rewards", spec).score([], ["abc"], {}) == [3.0]
    file(REWARD.replace("len(text)", "-len(text)"))
    assert load_component("rewards", spec).score([], ["abc"], {}) == [-3.0]


@pytest.mark.parametrize(
    ("group", "text", "name", "said"),
    [
        ("rewards", "x = 1\ny =\n", "score", "mine.py, line 2: SyntaxError"),
        ("rewards", "x = 1\n\ny = x / 0\n", "score", "mine.py, line 3: ZeroDivisionError"),
        ("rewards", "import nowhere_at_all\n", "score", "mine.py, line 1: ModuleNotFoundError"),
        ("rewards", "def scor(a, b, c): pass\n", "score", "Did you mean 'scor'"),
        ("rewards", "score = 3\n", "score", "score is of the type int"),
        (
            "rewards",
            "\ndef score(completions):\n    return []\n",
            "score",
            "mine.py, line 2: score(completions) cannot be called as "
            "score(prompts, completions, rows)",
        ),
        ("rewards", CLASS.replace("weight:", "wait:"), "Fixed", "lacks the option 'weight'"),
        ("rewards", CLASS.replace("def score", "def scores"), "Fixed", "it lacks score"),
        ("evaluators", REWARD, "score", "score is a function; a class is needed here"),
    ],
)
def test_a_mistake_names_the_file_and_the_line(file, group, text, name, said):
    with pytest.raises(StageError) as caught:
        load_component(group, {"use": f"{file(text)}:{name}"})
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_the_folder(file, tmp_path):
    with pytest.raises(StageError, match=r"cannot read gone.py \(in .*\): No such file"):
        load_component("rewards", {"use": "./gone.py:score"})


def test_a_module_beside_the_file_is_refused_with_the_reason(file):
    file("x = 1\n", "helper.py")
    with pytest.raises(StageError, match="helper.py is beside it, but only the file itself"):
        load_component("rewards", {"use": f"{file('import helper')}:score"})


def test_an_error_while_scoring_names_the_line(file):
    text = "def score(prompts, completions, rows):\n    return rows['nothing']\n"
    reward = load_component("rewards", {"use": f"{file(text)}:score"})
    with pytest.raises(StageError, match="mine.py, line 2: KeyError: 'nothing'"):
        reward.score([], ["a"], {})


def test_too_few_scores_are_refused(file):
    text = "def score(prompts, completions, rows):\n    return [1]\n"
    reward = load_component("rewards", {"use": f"{file(text)}:score"})
    with pytest.raises(StageError, match="1 scores for 2 completions"):
        reward.score([], ["a", "b"], {})


def test_the_folder_is_no_part_of_the_name():
    assert file_components.short_name("../a/mine.py:score") == "mine.py:score"
    assert not file_components.is_file("exact_answer")
    assert not file_components.is_file("module:Class")
