"""A class that does not keep its contract is refused when it is loaded, with a sentence."""

from __future__ import annotations

import pytest

from llmstages.core import registry
from llmstages.core.errors import StageError

COMPONENT = """
from dataclasses import dataclass
from llmstages.core.stage import option

class Good:
    '''A reward.'''
    @dataclass(frozen=True)
    class Config:
        weight: float = option(1.0, "weight")
    version = "1"
    def __init__(self, config): self.config = config
    def score(self, prompts, completions, rows): return [1.0 for _ in completions]

class Weightless(Good):
    @dataclass(frozen=True)
    class Config:
        limit: int = option(1, "limit")

class Mutable(Good):
    @dataclass
    class Config:
        weight: float = option(1.0, "weight")

class Short(Good):
    def score(self, completions): return []

class Silent:
    Config = Good.Config
    version = "1"

class NotAMethod(Good):
    score = 1.0

class Plain(Good):
    class Config: pass

class Judge:
    '''A filter.'''
    Config = Good.Config
    version = "1"
    kind = "judge"
    def __init__(self, config): pass
    def judge(self, documents): return [None for _ in documents]

class Group(Judge):
    kind = "group"
"""


@pytest.fixture
def components(install) -> None:
    names = ("Good", "Weightless", "Mutable", "Short", "Silent", "NotAMethod", "Plain")
    rewards = "".join(f"my_{name.lower()} = odd_parts:{name}\n" for name in names)
    filters = "my_judge = odd_parts:Judge\nmy_group = odd_parts:Group\n"
    points = f"[llmstages.rewards]\n{rewards}[llmstages.filters]\n{filters}"
    install("odd_parts", points, COMPONENT)


@pytest.mark.parametrize(
    "name, words",
    [
        ("my_weightless", "its Config lacks the option 'weight'"),
        ("my_mutable", "its Config is not frozen: write @dataclass"),
        ("my_short", "its score(self, completions) cannot be called as score(prompts, completions"),
        ("my_silent", "it lacks score"),
        ("my_notamethod", "its score is not a method"),
        ("my_plain", "its Config is not a dataclass"),
    ],
)
def test_a_reward_that_breaks_its_contract_is_refused(components, name, words):
    with pytest.raises(StageError) as caught:
        registry.load_component("rewards", {"use": name})
    message = str(caught.value)
    assert words in message
    assert "odd_parts" in message and "llmstages.plugin.Reward" in message


def test_one_that_keeps_it_is_loaded(components):
    reward = registry.load_component("rewards", {"use": "my_good", "weight": 2})
    assert reward.config.weight == 2.0


def test_a_filter_that_compares_documents_keeps_another_contract(components):
    assert registry.load_component("filters", {"use": "my_judge"})
    with pytest.raises(StageError, match="it lacks sign, compare"):
        registry.load_component("filters", {"use": "my_group"})


def test_third_parties_open_groups_and_register_kinds(install, tmp_path):
    from llmstages.core import artifacts

    install(
        "opener",
        "[llmstages.component_groups]\nchunkers = opener:Chunker\n"
        "[llmstages.chunkers]\nlines = opener:Lines\nodd = opener:Odd\n"
        "[llmstages.artifact_kinds]\nembeddings = opener:EMBEDDINGS\n",
        "from dataclasses import dataclass\nfrom typing import ClassVar, Protocol\n"
        "from llmstages.core.artifacts import ArtifactKind\n"
        "EMBEDDINGS = ArtifactKind(('vectors.npy',), 'vectors')\n"
        "class Chunker(Protocol):\n    Config: ClassVar[type]\n    version: ClassVar[str]\n"
        "    def chunks(self, text): ...\n"
        "@dataclass(frozen=True)\nclass Config: pass\n"
        "class Lines:\n    Config, version = Config, '1'\n"
        "    def __init__(self, config): pass\n    def chunks(self, text): return text.split()\n"
        "class Odd:\n    Config, version = Config, '1'\n",
    )
    assert "chunkers" in registry.component_groups()
    lines = registry.load_component("chunkers", {"use": "lines"})
    assert lines.chunks("a b") == ["a", "b"]
    with pytest.raises(StageError, match="it lacks chunks"):
        registry.load_component("chunkers", {"use": "odd"})
    assert artifacts.missing("embeddings", tmp_path) == ["vectors.npy"]


def test_a_fingerprint_knows_the_versions_of_inherited_classes():
    class Parent:
        version = "3"

    class Child(Parent):
        version = "1"

    class Grandchild(Child):
        pass

    assert registry.code_version(Parent) == "3"
    assert registry.code_version(Child) == registry.code_version(Grandchild) == "1 < 3"


def test_a_folder_of_a_kind_that_nobody_registers_is_refused(tmp_path):
    """It cannot be checked: once, any folder at all passed as such an input."""
    from llmstages.core.artifacts import parse_input
    from llmstages.pipeline.wiring import Scope, _source

    with pytest.raises(StageError, match="the artifact kind 'embeddings' is not registered"):
        _source("steps.x.vectors", str(tmp_path), parse_input("embeddings"), Scope())
